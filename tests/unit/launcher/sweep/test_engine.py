"""Sweeps that run: budget, rows, failures, and a sweep that is killed in the middle of cells."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import engine, rows
from btard.launcher.sweep.engine import DONE, Ended, Running, Wish
from btard.launcher.sweep.grid import Cell, cells
from btard.launcher.sweep.progress import Clock, duration
from btard.launcher.sweep.store import Store
from tests.launching import LAUNCH, PATIENCE_S, await_end, environment, launched, session
from tests.test_docs import DOCS, example

BASE = Experiment(backend="simulated", task="quadratic", device="cpu", steps=6, eval_every=3, attack_start=2)
GRID = ("sweep", "--backend", "simulated", "--task", "quadratic", "--device", "cpu", "--out", "sweep", "--cores", "1")


class Listener:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.ends: list[Ended] = []
        self.most = 0

    def tick(self, running: Sequence[Running], waiting: Sequence[Cell]) -> None:
        self.most = max(self.most, len(running))

    def ended(self, ended: Ended) -> None:
        self.ends.append(ended)


def _table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.mark.slow
def test_cells_run_once_and_failed_ones_on_demand(tmp_path: Path) -> None:
    store = Store(tmp_path)
    good = cells(BASE, {"byzantine": [0, 1], "attack": ["noise"], "seed": [0, 1]})
    halting = cells(BASE, {"byzantine": [4], "attack": ["crash"], "allow_majority": [True]})
    store.enlist("test", [*good, *halting], ["btard-launch"])
    listener = Listener()
    first = engine.run(store, [*good, *halting], Wish(cores=2), listener)
    assert [len(first.done), len(first.failed), len(first.skipped)] == [4, 1, 0]
    assert listener.most == 2, "two cells at a time on two cores"
    assert "node 0" in str(first.failed[0].problem)
    found = _table(tmp_path / "results.csv")
    assert {row["cell"] for row in found} == {cell.id for cell in good}
    assert all(row["outcome"] == "finished" and row["findings_wrong"] == "0" for row in found)
    assert {row["attack"] for row in found} == {"", "noise"}

    again = engine.run(store, [*good, *halting], Wish(cores=2), Listener())
    assert [len(again.done), len(again.skipped), len(again.failed)] == [0, 4, 1]
    assert again.failed[0].problem == f"failed before: {first.failed[0].problem}"
    retried = Listener()
    engine.run(store, halting, Wish(cores=2, retry_failed=True), retried)
    assert [ended.outcome for ended in retried.ends] == ["failed"]
    assert len(_table(tmp_path / "results.csv")) == 4

    curves = rows.load_curves(store.cell(good[0].id))
    assert [len(curves.loss), [step for step, _ in curves.accuracy]] == [6, [0, 3, 6]]


@pytest.mark.slow
def test_a_row_tells_false_gradients_from_other_misconduct(tmp_path: Path) -> None:
    store = Store(tmp_path)
    found = cells(BASE, {"attack": ["noise", "shift_aggregate"], "byzantine": [1], "steps": [60]})
    store.enlist("test", found, [])
    engine.run(store, found, Wish(cores=2), Listener())
    gradient, aggregate = (rows.load(store.cell(cell.id)) for cell in found)
    assert gradient.gradient_steps == gradient.detection_steps != []
    assert (aggregate.bans, aggregate.gradient_steps, len(aggregate.detection_steps)) == (1, [], 1)


def test_a_row_of_an_earlier_version_can_be_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(BASE, {})
    store.enlist("test", [cell], [])
    engine.run(store, [cell], Wish(cores=1), Listener())
    file = store.cell(cell.id) / rows.ROW
    fields = json.loads(file.read_text())
    assert fields.pop("gradient_steps") == []
    file.write_text(json.dumps(fields))
    assert rows.load(store.cell(cell.id)).gradient_steps is None


def test_a_slim_cell_keeps_what_figures_need(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(BASE, {})
    store.enlist("test", [cell], [])
    engine.run(store, [cell], Wish(cores=1, slim=True), Listener())
    kept = {path.name for path in store.cell(cell.id).iterdir()}
    assert kept == {"run.json", "genesis.json", "summary.json", "cell.json", "curves.json"}


@pytest.mark.slow
def test_comparison_runs_have_no_evidence_to_verify(tmp_path: Path) -> None:
    store = Store(tmp_path)
    topologies = ["parameter_server", "ring", "none", "byrdie"]
    compared = cells(BASE, {"topology": topologies, "rule": ["mean"], "momentum": [0.0]})
    store.enlist("test", compared, [])
    outcome = engine.run(store, compared, Wish(cores=1), Listener())
    assert [ended.problem for ended in outcome.failed] == []
    found = _table(tmp_path / "results.csv")
    assert [(row["topology"], row["findings"], row["findings_wrong"]) for row in found] == [
        (name, "", "") for name in topologies
    ]


@pytest.mark.sockets
def test_a_cell_made_with_a_file_is_verified_with_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(example(DOCS / "extending.md", "def overshoot"))
    arguments = (*GRID, "--import", "mine.py", "--attack", "overshoot", "--byzantine", "1",
                 "--attack-start", "3", "--steps", "40")  # fmt: skip
    done = subprocess.run([*LAUNCH, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = _table(tmp_path / "sweep" / "results.csv")
    assert (row["bans"], row["findings_wrong"]) == ("1", "0")
    assert int(row["findings"]) > 1


def test_an_attempt_that_died_before_its_rename_counts_for_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (cell,) = cells(BASE, {})
    attempt = store.attempt(cell.id)
    attempt.mkdir()
    (attempt / rows.ROW).write_text("{}")
    assert not store.finished(cell.id)
    claim = store.claim(cell.id)
    assert claim is not None
    assert not attempt.exists()
    assert store.claim(cell.id) is None, "somebody has it"
    claim.close()
    assert store.claim(cell.id) is not None


@pytest.mark.sockets
def test_a_sweep_killed_in_any_cell_resumes_without_a_lost_or_doubled_row(tmp_path: Path) -> None:
    arguments = (*GRID, "--steps", "150", "--eval-every", "50", "--seed", "0..2")
    for finished in range(2):  # killed in the middle of the first cell, then of the second
        with launched(tmp_path, *arguments) as process:
            _await_cell(process, tmp_path / "sweep", finished)
            os.kill(process.pid, signal.SIGKILL)
            assert process.wait(PATIENCE_S) == -signal.SIGKILL
    done = subprocess.run([*LAUNCH, *arguments], cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "1 finished before" in done.stdout
    found = _table(tmp_path / "sweep" / "results.csv")
    assert sorted(row["seed"] for row in found) == ["0", "1", "2"]
    assert len({row["cell"] for row in found}) == 3
    assert list((tmp_path / "sweep" / "work").iterdir()) == []


def _await_cell(process: subprocess.Popen[str], sweep: Path, finished: int) -> None:
    """Until so many cells are finished and the next one is under way; fails if the process ends before."""
    deadline = time.monotonic() + PATIENCE_S
    while not _under_way(sweep, finished):
        assert time.monotonic() < deadline
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
            raise AssertionError(process.communicate()[0])


def _under_way(sweep: Path, finished: int) -> bool:
    """So many cells are finished, and the next one has committed a step."""
    if len(list(sweep.glob("cells/*"))) != finished:
        return False
    try:
        return any("committed" in path.read_text() for path in sweep.glob("work/*/nodes/0/journal.jsonl"))
    except OSError:
        return False


@pytest.mark.sockets
def test_a_sweep_is_shared_by_several_machines(tmp_path: Path) -> None:
    """Each runs the cells of its list; their directories, copied together, are one sweep, and nothing is run again."""
    arguments = (*GRID[:-4], "--steps", "6", "--seed", "0..2", "--slim")

    def launch(*more: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        done = subprocess.run([*LAUNCH, *arguments, *more], cwd=tmp_path, env=environment(), input=given,
                              capture_output=True, text=True)  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done

    listed = launch("--dry-run")
    assert listed.stderr == "3 cells\n"
    lines = listed.stdout.splitlines(keepends=True)
    (tmp_path / "first.txt").write_text(lines[1])
    launch("--out", "a", "--only", "first.txt")
    launch("--out", "b", "--only", "-", given=lines[0] + lines[2])
    shutil.copytree(tmp_path / "a" / "cells", tmp_path / "b" / "cells", dirs_exist_ok=True)
    assert "3 finished before" in launch("--out", "b").stdout
    assert [row["seed"] for row in _table(tmp_path / "b" / "results.csv")] == ["0", "2", "1"]


@pytest.mark.sockets
def test_ctrl_c_stops_running_cells_in_order(tmp_path: Path) -> None:
    with launched(tmp_path, *GRID, "--steps", "1000000", "--eval-every", "100000") as process:
        _await_cell(process, tmp_path / "sweep", 0)
        os.killpg(process.pid, signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert "1 left" in output
    assert list((tmp_path / "sweep" / "work").iterdir()) == []
    await_end(session(process.pid))  # what starts workers ends by itself once the launcher is gone


@pytest.mark.slow
def test_bad_input_names_the_cell(tmp_path: Path) -> None:
    bad = [*LAUNCH, *GRID, "--attack", "noize", "--byzantine", "1"]
    done = subprocess.run(bad, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 2
    assert "cell 'the only cell'" in done.stderr
    assert "noise" in done.stderr
    assert not (tmp_path / "sweep").exists()


def test_the_time_left_follows_what_cells_took() -> None:
    (small,) = cells(BASE, {"steps": [10]})
    (large,) = cells(BASE, {"steps": [20]})
    clock = Clock(cores=2, now=0.0)
    assert clock.left_s([], [small]) is None
    row = rows.Row(
        cell="", labels={}, options={}, outcome="finished", problem=None, final_test_accuracy=None,
        best_test_accuracy=None, lowest_after_attack=None, final_train_loss=None, byzantine_peers=0, bans=0,
        honest_banned=0, honest_gone=0, undetected=0, attacked_from=None, first_ban=None, last_ban=None,
        detection_steps=[], agreement=True, findings=None, findings_wrong=None,
        bytes_sent=0, bytes_bulk=0, bytes_control=0, bytes_published=0, wall_seconds=6.0, cpu_seconds=5.0,
    )  # fmt: skip
    clock.saw(Ended(small, DONE, row))
    assert clock.left_s([], [large, large]) == pytest.approx(12.0), "24 core seconds on two cores"
    assert clock.left_s([], [large]) == pytest.approx(6.0)
    assert [duration(each) for each in (45, 720, 12000)] == ["45 s", "12 min", "3 h 20 min"]
