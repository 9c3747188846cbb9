"""The soak over real sockets: a short one, and what its scenarios may hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from btard.launcher.run import scenario
from btard.node.adversary.registry import ATTACKS as KNOWN
from btard.node.storage.wal import HEARD, WriteAheadLog
from tests.integration.soak import ATTACKS, PEERS, compose, damage, play
from tests.ledgers import entries, files


@pytest.mark.parametrize("seed", range(40))
def test_every_scenario_can_be_played_and_leaves_a_quorum(seed: int) -> None:
    episode = compose(seed, 200, 20.0)
    script = scenario.parse(episode.scenario, "episode.scn", PEERS, episode.steps)
    assert not script.warnings
    assert episode.byzantine + (episode.killed is not None) <= 2
    assert compose(seed, 200, 20.0) == episode


def test_its_attacks_are_in_the_catalogue() -> None:
    assert all(KNOWN.get(name) for name in ATTACKS)


def test_a_torn_batch_takes_nothing_from_a_ledger(tmp_path: Path) -> None:
    path, draw, torn = tmp_path / "00000001.ledger", Random(1), 0
    ledger = WriteAheadLog(path)
    ledger.append(HEARD, 2, b"what was synced")
    ledger.sync()
    ledger.close()
    for _ in range(80):
        torn += damage(tmp_path, draw) == "a torn batch"
        assert [entry for each in files(tmp_path) for entry in entries(each)] == [(HEARD, 2, b"what was synced")]
        WriteAheadLog(path).close()  # cuts the torn batch off, as a node does when it starts
        for begun in files(tmp_path)[1:]:
            begun.unlink()
    assert torn > 10


@pytest.mark.sockets
def test_a_short_episode_holds(tmp_path: Path) -> None:
    episode = compose(0, 60, 5.0)
    result, _, disks = play(episode, tmp_path / "episode")
    assert result.summary.steps == 60
    assert result.summary.scenario, "nothing happened to it"
    assert sum(disks.values()) == sum(event.action == "restart" for event in result.summary.scenario)


@pytest.mark.slow
def test_growth_is_measured_without_huge_pages() -> None:
    # In a process of its own, for there is no way back; a worker is a grandchild of the soak.
    code = (
        "import subprocess, sys; from tests.integration.soak import no_huge_pages; no_huge_pages();"
        "look = \"print([line for line in open('/proc/self/status') if line.startswith('THP_enabled')])\";"
        "print(subprocess.run([sys.executable, '-c', look], capture_output=True, text=True, check=True).stdout)"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["['THP_enabled:\\t0\\n']"]
