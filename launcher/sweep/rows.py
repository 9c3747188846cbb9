"""One row per finished cell, its curves and what made it: what tables and figures are made of, and archives hold."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from btard.launcher.options.table import OPTIONS
from btard.launcher.run.run_directory import Versions, read_record
from btard.launcher.run.summary import Summary
from btard.launcher.sweep.grid import PLACE, Cell
from btard.node.config import Role
from btard.node.errors import ConfigError, DataError
from btard.node.plugins import extensions
from btard.node.storage.journal import read

T = TypeVar("T")
ROW, CURVES = "cell.json", "curves.json"
FORMAT = 1
ARCHIVE = "results.parquet"
_LABEL = "label_"
_KEY = b"btard sweep"
_CURVES = ("loss", "evaluated", "accuracy", "active")


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
    `attacked_from`: the first step that any attacker was scheduled to attack. `attacked_steps`: how many steps any of
    them attacked, by their own account; None in rows of earlier versions. `findings_wrong`: of the evidence check;
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
    attacked_steps: int | None = None


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
        attacked_steps=len({step for record in read(run_dir / "events.jsonl")[0] if record["event"] == "attacked"
                            for step in record["steps"]}),
    )  # fmt: skip
    return row, curves


def options(cell: Cell) -> dict[str, Any]:
    """Every option of a cell that is part of its identity; own files by name and digest, not by where they lie."""
    names = [option.field for option in OPTIONS if option.field not in PLACE]
    given = {name: getattr(cell.experiment, name) for name in names}
    return given | {"imports": tuple(extensions.label(Path(path)) for path in cell.experiment.imports)}


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


def load_versions(cell_dir: Path) -> Versions | None:
    """What made a finished cell; None where its run.json does not say."""
    try:
        return msgspec.json.decode((cell_dir / "run.json").read_bytes(), type=_Record).versions
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None


class _Record(msgspec.Struct):
    versions: Versions


def _decode(path: Path, kind: type[T]) -> T:
    try:
        found = msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        problem = (error.strerror if isinstance(error, OSError) else "") or str(error)
        raise DataError(f"{path} cannot be read ({problem}); delete its directory and run the sweep again") from error
    check_format(path, getattr(found, "format", FORMAT))
    return found


def check_format(path: Path, found: object) -> None:
    """Refuse what another version wrote.

    Raises:
        ConfigError: the file, its format and ours.
    """
    if found != FORMAT:
        raise ConfigError(f"{path} has format {found}, and this version reads {FORMAT}; use the version that wrote it")


def table(rows: Sequence[Row], written: Callable[[object], object] | None = None) -> tuple[list[str], list[list[Any]]]:
    """Column names and values: the cell, its labels, its options, what came out; one line per row.

    Args:
        rows: in the order of the lines.
        written: how a value is; None: lists as one text.
    """
    written = written or _flat
    labels = list(dict.fromkeys(name for row in rows for name in row.labels))
    names = list(dict.fromkeys(name for row in rows for name in row.options))
    figures = [f.name for f in msgspec.structs.fields(Row) if f.name not in ("format", "cell", "labels", "options")]
    header = ["cell", *(f"{_LABEL}{name}" for name in labels), *names, *figures]
    body = [
        [row.cell, *(row.labels.get(name, "") for name in labels),
         *(written(row.options.get(name)) for name in names), *(written(getattr(row, name)) for name in figures)]
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


class Archive(msgspec.Struct, frozen=True):
    """A whole sweep in one file.

    Args:
        format: of the file.
        name, argv, wanted: of the sweep: its name, command line and number of cells.
        rows: of the finished cells.
        curves: by cell.
        versions: what made each cell; cells that do not say are not in it.
    """

    format: int
    name: str
    argv: list[str]
    wanted: int
    rows: list[Row] = []
    curves: dict[str, Curves] = {}
    versions: dict[str, Versions] = {}


def write_parquet(archive: Archive, path: Path) -> bool:
    """A sweep as Parquet where pyarrow is installed: a line for each cell, with its curves and what made it.

    Returns:
        False where pyarrow is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        return False
    header, body = table(archive.rows, lambda value: value)
    columns = {name: [line[place] for line in body] for place, name in enumerate(header)}
    drawn = [archive.curves[row.cell] for row in archive.rows]
    made = [archive.versions.get(row.cell) for row in archive.rows]
    floats, counts = pyarrow.list_(pyarrow.float32()), pyarrow.list_(pyarrow.int32())
    columns |= {
        "loss": pyarrow.array([curve.loss for curve in drawn], floats),
        "evaluated": pyarrow.array([[step for step, _ in curve.accuracy] for curve in drawn], counts),
        "accuracy": [[value for _, value in curve.accuracy] for curve in drawn],
        "active": pyarrow.array([curve.active for curve in drawn], counts),
        "versions": [None if each is None else msgspec.json.encode(each).decode() for each in made],
    }
    about = msgspec.structs.replace(archive, rows=[], curves={}, versions={})
    temporary = path.with_suffix(".tmp")
    written = pyarrow.table(columns).replace_schema_metadata({_KEY: msgspec.json.encode(about)})
    parquet.write_table(written, temporary, compression="zstd")
    temporary.replace(path)
    return True


def read_parquet(path: Path) -> Archive:
    """A sweep that `write_parquet` wrote.

    Raises:
        ConfigError: pyarrow is not installed, or it is no archive of a sweep, or one of another version.
        DataError: it is damaged.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ConfigError(f"{path}: reading it needs pyarrow ({error}); `pip install pyarrow`") from error
    try:
        read = parquet.read_table(path)
        about = msgspec.json.decode((read.schema.metadata or {}).get(_KEY, b"null"), type=Archive | None)
        lines = read.to_pylist()
    except (OSError, ArrowException, msgspec.MsgspecError) as error:
        raise DataError(f"{path} cannot be read as an archive: {' '.join(str(error).split())}") from error
    missing = [name for name in (*_CURVES, "versions") if name not in read.column_names]
    if about is None or missing:
        lacking = f"no {missing[0]}" if missing else "no sweep's name"
        raise ConfigError(f"{path} is no archive of a sweep: it has {lacking}; `btard-launch report SWEEP` writes one")
    check_format(path, about.format)
    try:
        return msgspec.structs.replace(
            about,
            rows=[_row(line) for line in lines],
            curves={line["cell"]: msgspec.convert(_drawn(line), Curves) for line in lines},
            versions={
                line["cell"]: msgspec.json.decode(line["versions"], type=Versions)
                for line in lines
                if line["versions"] is not None
            },
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {error}") from error


def _row(line: Mapping[str, Any]) -> Row:
    figures = {f.name: line[f.name] for f in msgspec.structs.fields(Row) if f.name in line}
    labels = {name.removeprefix(_LABEL): value for name, value in line.items() if name.startswith(_LABEL) and value}
    known = {*figures, *_CURVES, "versions"}
    given = {name: value for name, value in line.items() if name not in known and not name.startswith(_LABEL)}
    return msgspec.convert(figures | {"labels": labels, "options": given}, Row)


def _drawn(line: Mapping[str, Any]) -> dict[str, Any]:
    """Curves as JSON has them; losses with the digits that they were rounded to."""
    loss = [None if value is None else round(value, 6) for value in line["loss"]]
    accuracy = list(zip(line["evaluated"], line["accuracy"], strict=True))
    return {"loss": loss, "accuracy": accuracy, "active": line["active"]}


def _flat(value: object) -> object:
    return ";".join(map(str, value)) if isinstance(value, list | tuple) else value
