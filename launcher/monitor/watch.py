"""Follows the nodes' journals: into the run's own events.jsonl and metrics.jsonl, and into a RunState."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from btard.launcher.files import disk_error
from btard.launcher.monitor.state import Record, RunState
from btard.node.errors import DataError
from btard.node.storage import journal
from btard.node.storage.records import Banned, Evaluated, Finished, JournalReader, Line, Returned, open_regular, shown

_PLAIN = (str, int, float, type(None))


class NodeJournal:
    """Reads the records of one node that can be believed to be its own words.

    Args:
        run_dir: the run directory; nothing outside the node's folder in it is opened.
        node: whose journal, by its folder.
        peers: of the roster.
        steps: of the run; a record of a later step is refused.
        plays: the node journals the events of the scenario: a simulated one does; of processes the launcher does.
    """

    def __init__(self, run_dir: Path, node: int, peers: int, steps: int, *, plays: bool = False) -> None:
        self._run_dir, self._node, self._steps, self._plays = run_dir, node, steps, plays
        self._reader = JournalReader(run_dir, f"nodes/{node}/journal.jsonl", node, peers)
        self._told = 0

    @property
    def refused(self) -> int:
        """Records that were refused so far."""
        return self._reader.refused

    def look(self) -> Iterator[Record]:
        """The records since the last look, in their order; what breaks the rules is left out and counted."""
        for line in self._reader.look():
            try:
                self._check(line)
            except DataError as error:
                self._reader.refuse(line, str(error))
                continue
            yield _plain(line)

    def problems(self) -> list[str]:
        """One line for each refusal since the last time that this was asked."""
        new, self._told = self._reader.problems[self._told :], len(self._reader.problems)
        return new

    def _check(self, line: Line) -> None:
        """Refuse what the launcher would have to take on trust.

        Raises:
            DataError: why.
        """
        step, where = line.record.get("step"), f"nodes/{self._node}"
        if isinstance(step, int) and step > self._steps + 1:
            raise DataError(f"it is of step {shown(step)}, and the run has {self._steps}")
        match line.entry:
            case Banned(step=at, attempt=attempt, peer=peer, path=path):
                self._own(path, f"{where}/evidence/ban-{at}-{attempt}-{peer}.evidence")
            case Returned(step=at, peer=peer, path=path):
                self._own(path, f"{where}/evidence/return-{at}-{peer}.certificate")
            case Finished(path=path):
                self._own(path, f"{where}/parameters.f32")
            case Evaluated(correct=correct, count=count) if correct > count:
                raise DataError(f"it has {correct} correct answers of {count}")
            case _:
                if line.event == "scenario" and not self._plays:
                    raise DataError("events of the scenario are not a node's to tell")

    def _own(self, path: str, expected: str) -> None:
        """The file of a record is the one that this node keeps for it."""
        if path != expected:
            raise DataError(f"its file is {shown(path)} instead of {expected}")
        try:
            os.close(open_regular(self._run_dir, path))
        except FileNotFoundError as error:
            raise DataError(f"its file {path} is not there") from error


def fold(run_dir: Path, state: RunState, steps: int, *, plays: bool = False) -> list[str]:
    """Fold all journals of a run, as they stand, into a fresh state in order of time.

    Args:
        run_dir: the run directory.
        state: of the run's peers.
        steps, plays: as for `NodeJournal`.

    Returns:
        One line for each record that was refused.
    """
    newcomers = (each for each in range(state.peers, state.capacity) if (run_dir / "nodes" / str(each)).is_dir())
    most = max(state.peers, state.capacity)
    journals = [NodeJournal(run_dir, node, most, steps, plays=plays) for node in (*state.nodes, *newcomers)]
    for record in sorted((each for own in journals for each in own.look()), key=lambda record: float(record["time"])):
        state.apply(record)
    return [line for own in journals for line in own.problems()]


def _plain(line: Line) -> Record:
    """A record without what has no type here and might be nested: nobody asked for it."""
    known = type(line.entry).__struct_fields__
    return {name: value for name, value in line.record.items() if name in known or isinstance(value, _PLAIN)}


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
        most = max(state.peers, state.capacity)
        self._journals = {node: NodeJournal(run_dir, node, most, steps, plays=simulated) for node in state.nodes}
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
