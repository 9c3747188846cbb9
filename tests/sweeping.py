"""Hand-made rows and curves of a sweep, for tests of its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from btard.launcher.report.sweep_data import SweepData, evaluated_every
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import rows, spec
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.rows import Curves, Row

CLEAN_ACCURACY = 0.985


def row(experiment: Experiment, labels: Mapping[str, str] | None = None, **given: Any) -> Row:
    """A run of an experiment that went well: all attackers convicted of a false gradient at their fourth."""
    cell, roles = Cell(experiment, dict(labels or {})), experiment.roles()
    start = min((role.schedule.start for role in roles.values()), default=None)
    waits = [4] * len(roles)
    ban = None if start is None else start + 4
    made = Row(
        cell=cell.id, labels=dict(cell.labels), options=rows.options(cell), outcome="finished", problem=None,
        final_test_accuracy=CLEAN_ACCURACY, best_test_accuracy=CLEAN_ACCURACY, lowest_after_attack=None,
        final_train_loss=0.1, byzantine_peers=len(roles), bans=len(roles), honest_banned=0, honest_gone=0,
        undetected=0, attacked_from=start, first_ban=ban, last_ban=ban, detection_steps=waits, agreement=True,
        findings=7, findings_wrong=0, bytes_sent=1000, bytes_bulk=900, bytes_control=90, bytes_published=10,
        wall_seconds=2.0, cpu_seconds=1.0, gradient_steps=waits,
    )  # fmt: skip
    return msgspec.structs.replace(made, **given)


def curves(made: Row, accuracy: float = CLEAN_ACCURACY) -> Curves:
    """An evaluation every `eval_every` steps, all with the same accuracy."""
    steps, every = made.options["steps"], evaluated_every(made)
    points = [(step, accuracy) for step in range(0, steps + 1, every)]
    return Curves([1.0] * steps, points, [made.options["peers"]] * steps)


def swept(made: Sequence[Row], drawn: Mapping[str, Curves] | None = None) -> SweepData:
    """A sweep of these rows, all finished; curves by cell, where they are none: `curves`."""
    known = {each.cell: curves(each) for each in made} | dict(drawn or {})
    return SweepData(Path("nowhere"), "hand-made", ["btard-launch", "sweep"], len(made), made, known)


def plan(name: str, quick: bool, **options: str) -> list[Row]:
    """A row for every cell of a plan that ships."""
    return [row(cell.experiment, cell.labels) for cell in spec.make(name, quick, Experiment(), options).cells]
