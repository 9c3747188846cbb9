"""A sweep's directory: which cells are finished, failed or being run, however often it was killed.

`cells/ID/` is a finished cell's run directory. It comes to be by one rename, after its row was written into it: a cell
either is there with its row, or is not there at all. `work/` holds attempts, `failed/ID/` the last one that failed,
`claims/ID` is locked by whoever runs a cell, so that several sweeps may work on one directory.
"""

from __future__ import annotations

import fcntl
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from btard.launcher.files import as_json, disk_error, write_atomically
from btard.launcher.run.experiment import Experiment
from btard.launcher.sweep import rows
from btard.launcher.sweep.grid import Cell
from btard.launcher.sweep.rows import Curves, Row
from btard.node.errors import ConfigError

FORMAT = rows.FORMAT
RESULTS = "results.csv"
CELLS = "cells"
PROBLEM = "problem.txt"
OPTION = "--out"
"""What a user names a sweep's directory with."""
_SLIM = ("ceremony", "nodes", "events.jsonl", "metrics.jsonl", "logs", "model.pt")


class Listed(msgspec.Struct, frozen=True):
    """A cell as sweep.json lists it."""

    id: str
    labels: dict[str, str]
    experiment: Experiment


class Record(msgspec.Struct, frozen=True):
    """sweep.json: all cells that this directory was ever asked for, in order, and how."""

    format: int
    name: str
    argv: list[str]
    cells: list[Listed]


class Store:
    """The files of one sweep.

    Args:
        path: its directory.

    Raises:
        BackendError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            for name in (CELLS, "work", "failed", "claims"):
                (path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, path, OPTION) from error

    def enlist(self, name: str, cells: Sequence[Cell], argv: Sequence[str]) -> int:
        """Add cells to sweep.json; those that it lists stay.

        Returns:
            How many it lists beside these.

        Raises:
            ConfigError: the directory belongs to a sweep of another name.
        """
        with self._locked():
            known = read(self.path) if (self.path / "sweep.json").exists() else None
            if known is not None and known.name != name:
                raise ConfigError(f"{self.path} holds the sweep {known.name!r}, not {name!r}; use another --out")
            listed = {each.id: each for each in known.cells} if known else {}
            for cell in cells:
                listed[cell.id] = Listed(cell.id, dict(cell.labels), cell.experiment)
            record = Record(FORMAT, name, list(argv), list(listed.values()))
            write_atomically(self.path / "sweep.json", as_json(record), option=OPTION)
        return len(listed) - len({cell.id for cell in cells})

    def cell(self, cell_id: str) -> Path:
        """Where a finished cell lies."""
        return self.path / CELLS / cell_id

    def finished(self, cell_id: str) -> bool:
        """The cell's run is over and has its row."""
        return (self.cell(cell_id) / rows.ROW).exists()

    def failed(self, cell_id: str) -> Path | None:
        """Where the last failed attempt at a cell lies, if the last one failed."""
        path = self.path / "failed" / cell_id
        return path if path.exists() and not self.finished(cell_id) else None

    def problem(self, cell_id: str) -> str:
        """Why the last attempt at a failed cell failed, in one line."""
        try:
            words = (self.path / "failed" / cell_id / PROBLEM).read_text(errors="replace").split()
        except OSError:
            words = []
        return "failed before" + (f": {' '.join(words)}" if words else "")

    def claim(self, cell_id: str) -> BinaryIO | None:
        """The right to run a cell, until it is closed or its process ends; None if somebody else has it. Attempts that
        died are cleared away."""
        lock = _open(self.path / "claims" / cell_id)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        for stale in (self.path / "work").glob(f"{cell_id}-*"):
            # Its processes may still be about to end; whatever they write now is nobody's.
            shutil.rmtree(stale, ignore_errors=True)
        return lock

    def attempt(self, cell_id: str) -> Path:
        """A fresh place for a run directory."""
        return self.path / "work" / f"{cell_id}-{secrets.token_hex(4)}"

    def keep(self, attempt: Path, row: Row, curves: Curves, slim: bool) -> None:
        """Make an attempt the finished cell, in one step."""
        if slim:
            _slim(attempt)
        write_atomically(attempt / rows.CURVES, msgspec.json.encode(curves), option=OPTION)
        write_atomically(attempt / rows.ROW, msgspec.json.format(msgspec.json.encode(row), indent=1) + b"\n",
                         option=OPTION)  # fmt: skip
        attempt.rename(self.cell(row.cell))
        shutil.rmtree(self.path / "failed" / row.cell, ignore_errors=True)

    def reject(self, attempt: Path, cell_id: str) -> Path:
        """Put a failed attempt aside, for people to look at; returns where."""
        target = self.path / "failed" / cell_id
        shutil.rmtree(target, ignore_errors=True)
        attempt.rename(target)
        return target

    def drop(self, attempt: Path) -> None:
        """Forget an attempt that was interrupted."""
        shutil.rmtree(attempt, ignore_errors=True)

    def rows(self) -> list[Row]:
        """The rows of all finished cells that sweep.json lists, in its order.

        Raises:
            DataError: one is damaged.
        """
        listed = read(self.path).cells
        # Labels are the sweep's, which may have changed since the cell was run.
        return [
            msgspec.structs.replace(rows.load(self.cell(each.id)), labels=each.labels)
            for each in listed
            if self.finished(each.id)
        ]

    def publish(self) -> list[Row]:
        """Write results.csv (and results.parquet where pyarrow is installed) from the finished cells."""
        with self._locked():
            found = self.rows()
            write_atomically(self.path / RESULTS, rows.as_csv(found), option=OPTION)
            record = read(self.path)
            curves = {row.cell: rows.load_curves(self.cell(row.cell)) for row in found}
            made = {row.cell: versions for row in found if (versions := rows.load_versions(self.cell(row.cell)))}
            whole = rows.Archive(
                rows.FORMAT, record.name, _placeless(record.argv), len(record.cells), found, curves, made
            )
            rows.write_parquet(whole, self.path / rows.ARCHIVE)
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with _open(self.path / "claims" / "sweep") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def _open(lock: Path) -> BinaryIO:
    """A file to lock; the directory may be there and still not be ours to write."""
    try:
        return lock.open("ab")
    except OSError as error:
        raise disk_error(error, lock, OPTION) from error


def read(path: Path) -> Record:
    """The sweep.json of a sweep's directory.

    Raises:
        ConfigError: there is none, or it is not one of ours, or of another version.
    """
    file = path / "sweep.json"
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Record)
    except OSError as error:
        raise ConfigError(f"{path} is not a sweep: {file.name} cannot be read ({error.strerror})") from error
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not readable by this version: {error}") from error
    rows.check_format(file, found.format)
    return found


def _placeless(argv: Sequence[str]) -> list[str]:
    """A command line for whoever has only the archive: without where the sweep lay, or the program."""
    kept = [word for before, word in zip(("", *argv), argv, strict=False) if OPTION not in (before, word)]
    return ["btard-launch", *(word for word in kept[1:] if not word.startswith(f"{OPTION}="))]


def _slim(attempt: Path) -> None:
    """Leave what tables and figures need; the evidence has been checked before."""
    for name in _SLIM:
        path: Any = attempt / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
