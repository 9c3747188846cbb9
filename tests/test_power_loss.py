"""A loss of power, a full disk or a flipped bit at any write: the node says nothing else than what has left it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.storage_faults import main, trials


@pytest.mark.slow
def test_wherever_the_power_goes_a_node_never_contradicts_itself(tmp_path: Path) -> None:
    """Ten thousand: `python -m tests.storage_faults --crashes 10000`."""
    lives = list(trials(400, tmp_path))
    assert [trial.oracle.contradictions for trial in lives if trial.oracle.contradictions] == []
    happened = sum((trial.counts for trial in lives), start=lives[0].counts.__class__())
    assert min(happened[what] for what in ("power lost", "disk full", "bit flipped", "damage refused")) > 5
    # Not most: a node that may have missed a part of a dispute signs nothing of how it ends, and nobody else is there.
    assert sum(trial.oracle.far[0] == 3 for trial in lives) > len(lives) // 5, "many come to the end of the run"


def test_a_first_model_that_the_disk_never_got_keeps_no_node_off(tmp_path: Path) -> None:
    """The sectors of its record were there, those of the model were not: crash 1,510 of the long run."""
    (trial,) = trials(1, tmp_path, 1131)
    assert trial.counts["power lost"] > 0 and not trial.counts["damage refused"] and not trial.oracle.contradictions


@pytest.mark.parametrize("ignores", ["sync", "directory"])
def test_on_a_disk_that_lies_about_what_it_has_nodes_do_contradict_themselves(ignores: str, tmp_path: Path) -> None:
    """So the oracle sees it, and each of the two kinds of waiting is needed."""
    assert any(trial.oracle.contradictions for trial in trials(200, tmp_path, ignores=ignores))


def test_without_waiting_for_the_disk_nodes_contradict_themselves(tmp_path: Path) -> None:
    """`--durability none`."""
    assert any(trial.oracle.contradictions for trial in trials(60, tmp_path, waits=False))


def test_the_command_counts_crashes_and_fails_on_a_contradiction(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--crashes", "3"]) == 0
    assert "0 nodes contradicted themselves" in capsys.readouterr().out
    assert main(["--crashes", "40", "--ignore", "sync"]) == 1
    assert "contradicts itself in" in capsys.readouterr().out
