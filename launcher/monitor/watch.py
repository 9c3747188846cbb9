"""Follows the nodes' journals: into the run's own events.jsonl and metrics.jsonl, and into a RunState."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from pathlib import Path

from btard.launcher.files import disk_error
from btard.launcher.monitor.journals import NodeJournal
from btard.launcher.monitor.state import Record, RunState
from btard.node.storage import journal

LAUNCHER = "launcher"
METRICS = frozenset({"committed", "evaluated"})


class Watch:
    """Reads what the nodes have journalled since the last look; owns the run's two collected files.

    Args:
        run_dir: the run directory; the journal of node i is `nodes/i/journal.jsonl`.
        state: what the records are folded into.
        steps: of the run.
        simulated: the nodes journal the events of the scenario.
    """

    def __init__(self, run_dir: Path, state: RunState, steps: int, *, simulated: bool = False) -> None:
        self.state = state
        self._journals = {node: NodeJournal(run_dir, node, state.peers, steps, plays=simulated) for node in state.nodes}
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
        for node, own in self._journals.items():
            deque(islice(own.look(), seen[node]), maxlen=0)

    def look(self) -> list[Record]:
        """All records journalled since the last look, in order of time.

        Raises:
            BackendError: the disk is full.
        """
        found = [record for own in self._journals.values() for record in own.look()]
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

    def problems(self) -> list[str]:
        """A line for each record of a node that was refused since the last time that this was asked."""
        return [line for own in self._journals.values() for line in own.problems()]

    @property
    def refused(self) -> dict[int, int]:
        """How many records were refused, by node."""
        return {node: own.refused for node, own in self._journals.items() if own.refused}

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
