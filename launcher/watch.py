"""Follows the nodes' journals: into the run's own events.jsonl and metrics.jsonl, and into a RunState."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

from launcher.state import Record, RunState
from node import journal
from node.errors import BackendError

LAUNCHER = "launcher"
_METRICS = frozenset({"committed", "evaluated"})


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
        self._events = _open(run_dir / "events.jsonl")
        self._metrics = _open(run_dir / "metrics.jsonl")

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
        return found

    def note(self, event: str, **fields: object) -> None:
        """Add an event of the launcher's own.

        Raises:
            BackendError: the disk is full.
        """
        self._write([{"time": time.time(), "node": LAUNCHER, "event": event, **fields}])

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        self._metrics.close()

    def _write(self, records: Iterable[Record]) -> None:
        try:
            for record in records:
                file = self._metrics if record["event"] in _METRICS else self._events
                file.write(json.dumps(record) + "\n")
            self._events.flush()
            self._metrics.flush()
        except OSError as error:
            raise BackendError(f"cannot write to {self._events.name}: {error.strerror}; free some space") from error


def _open(path: Path) -> TextIO:
    try:
        return path.open("a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise BackendError(f"cannot write to {path}: {error.strerror}") from error
