"""One row per finished cell, and its curves: what tables and figures are made of."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from btard.launcher.options.table import OPTIONS
from btard.launcher.run.run_directory import read_record
from btard.launcher.run.summary import Summary
from btard.launcher.sweep.grid import PLACE, Cell
from btard.node.config import Role
from btard.node.errors import DataError
from btard.node.storage.journal import read

T = TypeVar("T")
ROW, CURVES = "cell.json", "curves.json"
FORMAT = 1


class Curves(msgspec.Struct, frozen=True):
    """A run over its steps.

    Args:
        loss: mean training loss of the honest contributors, by step; None where no honest loss is a number.
        accuracy: (step, test accuracy).
        active: peers in the roster, by step.
    """

    loss: list[float | None]
    accuracy: list[tuple[int, float]]
    active: list[int]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished cell is worth; the fields, after the options, are the columns of results.csv.

    `first_ban`, `last_ban`: steps. `detection_steps`: attacked steps of each banned attacker until its ban;
    `gradient_steps`: those of the attackers banned for a false gradient, None in rows of earlier versions.
    `attacked_from`: the first step that any attacker was scheduled to attack. `findings_wrong`: of the evidence check;
    None: not checked.
    """

    format: int = FORMAT
    cell: str
    labels: dict[str, str]
    options: dict[str, Any]
    outcome: str
    problem: str | None
    final_test_accuracy: float | None
    best_test_accuracy: float | None
    lowest_after_attack: float | None
    final_train_loss: float | None
    byzantine_peers: int
    bans: int
    honest_banned: int
    honest_gone: int
    undetected: int
    attacked_from: int | None
    first_ban: int | None
    last_ban: int | None
    detection_steps: list[int]
    agreement: bool
    findings: int | None
    findings_wrong: int | None
    bytes_sent: int
    bytes_bulk: int
    bytes_control: int
    bytes_published: int
    wall_seconds: float
    cpu_seconds: float
    gradient_steps: list[int] | None = None


def score(cell: Cell, run_dir: Path, summary: Summary, findings: tuple[int, int] | None) -> tuple[Row, Curves]:
    """The row and the curves of a run that is over.

    Args:
        findings: how many things `verify` checked, and how many were wrong; None: it did not run.

    Raises:
        DataError: the run's metrics cannot be read.
    """
    roles = {int(peer): role for peer, role in read_record(run_dir).roles.items()}
    curves, cpu_seconds = _curves(run_dir, summary, roles, cell.experiment.steps)
    start = min((role.schedule.start for role in roles.values()), default=None)
    after = [value for step, value in summary.accuracy if start is not None and step >= start]
    first = [ban.step for ban in summary.bans if ban.byzantine]
    convicted = {str(ban.peer) for ban in summary.bans if ban.byzantine and ban.reason == "gradient"}
    row = Row(
        cell=cell.id, labels=dict(cell.labels), options=options(cell), outcome=summary.outcome,
        problem=summary.problem, final_test_accuracy=summary.final_test_accuracy,
        best_test_accuracy=max((value for _, value in summary.accuracy), default=None),
        lowest_after_attack=min(after, default=None), final_train_loss=summary.final_train_loss,
        byzantine_peers=len(summary.byzantine), bans=len(summary.bans), honest_banned=summary.honest_banned,
        honest_gone=summary.honest_gone, undetected=summary.undetected, attacked_from=start,
        first_ban=min(first, default=None), last_ban=max(first, default=None),
        detection_steps=list(summary.detection_steps.values()), agreement=summary.agreement,
        findings=findings and findings[0], findings_wrong=findings and findings[1],
        bytes_sent=summary.bytes_sent.total, bytes_bulk=summary.bytes_sent.bulk,
        bytes_control=summary.bytes_sent.control, bytes_published=summary.bytes_sent.publication,
        wall_seconds=summary.wall_seconds, cpu_seconds=cpu_seconds,
        gradient_steps=[steps for peer, steps in summary.detection_steps.items() if peer in convicted],
    )  # fmt: skip
    return row, curves


def options(cell: Cell) -> dict[str, Any]:
    """Every option of a cell that is part of its identity."""
    names = [option.field for option in OPTIONS if option.field not in PLACE]
    return {name: getattr(cell.experiment, name) for name in names}


def _curves(run_dir: Path, summary: Summary, roles: Mapping[int, Role], steps: int) -> tuple[Curves, float]:
    """Curves, and the CPU seconds of all processes together; the step after the last, `steps`, trains nothing."""
    records, _ = read(run_dir / "metrics.jsonl")
    losses: dict[int, list[float]] = {}
    active: dict[int, int] = {}
    cpu: dict[int, float] = {}
    for record in records:
        if record["event"] != "committed":
            continue
        cpu[record["node"]] = record["cpu_seconds"]
        active[record["step"]] = len(record["active"])
        if record["node"] not in roles and record["loss"] is not None:
            losses.setdefault(record["step"], []).append(record["loss"])
    mean = [round(statistics.fmean(losses[step]), 6) if step in losses else None
            for step in range(min(steps, max(active, default=-1) + 1))]  # fmt: skip
    shared = (run_dir / "logs" / "simulation.log").exists()
    seconds = max(cpu.values(), default=0.0) if shared else sum(cpu.values())
    return Curves(mean, list(summary.accuracy), [active[step] for step in sorted(active)]), round(seconds, 3)


def load(cell_dir: Path) -> Row:
    """The row of a finished cell.

    Raises:
        DataError: it is damaged.
    """
    return _decode(cell_dir / ROW, Row)


def load_curves(cell_dir: Path) -> Curves:
    """The curves of a finished cell.

    Raises:
        DataError: they are damaged.
    """
    return _decode(cell_dir / CURVES, Curves)


def _decode(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read ({error}); delete its directory and run the sweep again") from error


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[Any]]]:
    """Column names and values: the cell, its labels, its options, what came out; one line per row."""
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    names = list(dict.fromkeys(name for row in rows for name in row.options))
    figures = [f.name for f in msgspec.structs.fields(Row) if f.name not in ("format", "cell", "labels", "options")]
    header = ["cell", *(f"label_{name}" for name in labels), *names, *figures]
    body = [
        [row.cell, *(row.labels.get(name, "") for name in labels),
         *(_flat(row.options.get(name)) for name in names), *(_flat(getattr(row, name)) for name in figures)]
        for row in rows
    ]  # fmt: skip
    return header, body


def as_csv(rows: Sequence[Row]) -> bytes:
    """The table as CSV, None as an empty field."""
    header, body = table(rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(body)
    return text.getvalue().encode()


def write_parquet(rows: Sequence[Row], path: Path) -> bool:
    """The table as Parquet where pyarrow is installed; False where it is not."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return False
    header, body = table(rows)
    columns = {name: [line[place] for line in body] for place, name in enumerate(header)}
    temporary = path.with_suffix(".tmp")
    parquet.write_table(pyarrow.table(columns), temporary)
    temporary.replace(path)
    return True


def _flat(value: object) -> object:
    return ";".join(map(str, value)) if isinstance(value, list | tuple) else value
