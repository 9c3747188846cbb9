"""The page of peers' own files: what they tell, and nothing that only a launcher knows."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from btard import Experiment, run
from btard.launcher.report import command, run_data
from btard.launcher.run import control
from btard.node.errors import ConfigError


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What collecting from three of four peers gives, one of which was banned."""
    where = tmp_path_factory.mktemp("peers")
    experiment = Experiment(
        backend="simulated",
        task="quadratic",
        device="cpu",
        peers=4,
        steps=60,
        batch_size=4,
        eval_every=10,
        attack="sign_flip",
        byzantine=1,
        attack_start=3,
        run_dir=str(where / "run"),
    )
    made = run(experiment)
    assert [ban.peer for ban in made.summary.bans] == [3]
    (where / "all").mkdir()
    shutil.copy(where / "run/genesis.json", where / "all")
    for node in (0, 1, 3):
        shutil.copytree(where / f"run/nodes/{node}", where / f"all/nodes/{node}")
    return where / "all"


def test_the_page_says_what_the_peers_tell_and_calls_nobody_honest(collected: Path) -> None:
    page = command.report(collected).read_text()
    assert "peer 0, peer 1, peer 3" in page and "not known here" in page and "Test accuracy" in page
    assert "btard-launch verify" in page and "batch_size" in page
    for word in ("IS HONEST", "honest peers", "attackers", "Repeat it", "Score", "Versions"):
        assert word not in page


def test_accuracy_is_of_the_slices_that_are_here(collected: Path) -> None:
    found = run_data.load_peers(collected)
    assert found.nodes == (0, 1, 3) and found.summary.outcome == "not finished here"  # the banned one never did
    assert [step for step, _ in found.summary.accuracy] == [0, 10, 20, 30, 40, 50, 60]
    assert all(0 <= value <= 1 for _, value in found.summary.accuracy)


def test_the_status_is_of_the_peers_that_are_here(collected: Path) -> None:
    lines = control.status(collected)
    assert lines[0].startswith("run ") and "of 4 owners, as the peers in" in lines[0]
    assert [line.split()[:3] for line in lines[2:4]] == [["peer", "0", "finished"], ["peer", "1", "finished"]]
    assert not any(line.startswith("peer 2") for line in lines)
    assert any(line.startswith("peer 3  banned at step") for line in lines)


def test_a_directory_without_a_journal_has_no_page(collected: Path, tmp_path: Path) -> None:
    shutil.copy(collected / "genesis.json", tmp_path)
    with pytest.raises(ConfigError, match="has no journal of a peer; `btard-node run"):
        command.report(tmp_path)
