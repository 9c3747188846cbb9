"""Follows the nodes' journals: into the run's own events.jsonl and metrics.jsonl, and into a RunState."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from launcher.files import disk_error
from launcher.state import Record, RunState
from node import journal

LAUNCHER = "launcher"
METRICS = frozenset({"committed", "evaluated"})


class Watch:
    """Reads what the nodes have journalled since the last look; owns the run's two collected files.

    Args:
        run_dir: the run directory; the journal of node i is `nodes/i/journal.jsonl`.
        state: what the records are folded into.
    """

    def __init__(self, run_dir: Path, state: RunState) -> None:
        self.state = state
        self._journals = {node: run_dir / "nodes" / str(node) / "journal.jsonl" for node in state.nodes}
        self._offsets = dict.fromkeys(state.nodes, 0)
        self._noted: list[Record] = []
        self._events = _Lines(run_dir / "events.jsonl")
        self._metrics = _Lines(run_dir / "metrics.jsonl")

    def catch_up(self) -> None:
        """Fold what was collected in an earlier life of the run, and go on behind it.

        Raises:
            DataError: a file was damaged after it was written.
        """
        told: list[Record] = []
        for lines in (self._events, self._metrics):
            told += journal.read(lines.path)[0]
        told.sort(key=lambda record: float(record["time"]))
        for record in told:
            self.state.apply(record)
        seen = Counter(record["node"] for record in told)
        for node, path in self._journals.items():
            if path.exists():
                self._offsets[node] = journal.offset_after(path, seen[node])

    def look(self) -> list[Record]:
        """All records journalled since the last look, in order of time.

        Raises:
            BackendError: the disk is full.
        """
        found: list[Record] = []
        for node, path in self._journals.items():
            if path.exists():
                records, self._offsets[node] = journal.read(path, self._offsets[node])
                found += records
        found.sort(key=lambda record: float(record["time"]))
        for record in found:
            self.state.apply(record)
        self._write(found)
        noted, self._noted = self._noted, []
        return noted + found

    def note(self, event: str, **fields: object) -> None:
        """Add an event of the launcher's own; the next look returns it with the nodes'.

        Raises:
            BackendError: the disk is full.
        """
        record = {"time": time.time(), "node": LAUNCHER, "event": event, **fields}
        self._write([record])
        self.state.apply(record)
        self._noted.append(record)

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        self._metrics.close()

    def _write(self, records: Iterable[Record]) -> None:
        for record in records:
            (self._metrics if record["event"] in METRICS else self._events).append(record)


class _Lines:
    """A file of JSON lines that holds whole ones only, whatever the disk does."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # Unbuffered: what a full disk refuses must not come up again when the file is closed.
            self._file = path.open("ab+", buffering=0)
            journal.cut_torn_line(self._file.fileno())
        except OSError as error:
            raise disk_error(error, path) from error

    def append(self, record: Record) -> None:
        line = json.dumps(record).encode() + b"\n"
        # Not tell(): after a failed write it stands beyond the end that the truncation restored.
        end = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            while written < len(line):
                written += self._file.write(line[written:])
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(end)
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        self._file.close()
