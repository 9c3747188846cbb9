"""The append-only event log of one node: JSON lines, the record of truth of a run."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from btard.node.errors import BackendError, DataError, LocalProtocolError

Record = dict[str, Any]
_TAIL_BYTES = 1 << 16
_REMEMBERED_STEPS = 256
"""Of a node's earlier life: it goes on at one of its last three checkpoints."""
_WHAT = ("event", "step", "attempt", "peer", "kind", "part", "accused", "accuser")
"""Fields that tell agreed facts from each other."""
_COMMON: dict[str, tuple[type, ...]] = {"time": (int, float), "node": (int, str), "event": (str,)}
"""Fields that every record has; the launcher's own events have its name instead of a node's id."""


class Journal:
    """Writes one line per event, each in one system call, so that a reader sees whole lines or none.

    Args:
        path: the file; created with its directory, appended to if it exists.
        node: the genesis id that every line carries.
        clock: seconds since the epoch, for people; nothing in the protocol reads them.

    Raises:
        BackendError: the file cannot be opened.
        DataError: it holds what is no record.
    """

    def __init__(self, path: Path, node: int, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._node = node
        self._clock = clock
        self._file = -1
        self._told: frozenset[tuple[object, ...]] = frozenset()
        """What an earlier life has written last."""
        self.writes = 0
        """How often the kernel was given a line."""
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
            cut_torn_line(self._file)
            lived = os.fstat(self._file).st_size > 0
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        try:
            self._told = _newest_facts(path) if lived else frozenset()
        except DataError:
            self.close()
            raise

    def append_once(self, event: str, **fields: object) -> None:
        """As `append`, unless an earlier life of this node has written it: a step that was journalled, but not kept, is
        gone through again.

        Args:
            event, fields: a fact that all honest nodes agree on, so that it comes out the same.
        """
        if _fact({"event": event, **fields}) not in self._told:
            self.append(event, **fields)

    def append(self, event: str, **fields: object) -> None:
        """Write `{"time", "node", "event", **fields}` as one line; it has reached the kernel on return.

        Raises:
            BackendError: the disk is full or failing; the file still ends with a whole line.
            LocalProtocolError: a field bears a reserved name, cannot be written as JSON, or the journal is closed.
        """
        if self._file < 0:
            raise LocalProtocolError(f"{event} was written to the closed journal {self._path}")
        if taken := {"time", "node"} & fields.keys():
            raise LocalProtocolError(f"journal event {event} uses the reserved field {sorted(taken)[0]!r}")
        record = {"time": round(self._clock(), 6), "node": self._node, "event": event, **fields}
        try:
            line = msgspec.json.encode(record) + b"\n"
        except (TypeError, msgspec.MsgspecError) as error:
            raise LocalProtocolError(f"journal event {event} is not JSON: {error}") from error
        try:
            written = os.write(self._file, line)
            self.writes += 1
            while written < len(line):  # a full disk takes the first part of a line and refuses the rest
                written += os.write(self._file, line[written:])
        except OSError as error:
            self._cut_after_failure()
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _cut_after_failure(self) -> None:
        try:
            cut_torn_line(self._file)
        except OSError:
            return  # readers tolerate a torn line; the caller hears of the first error

    def _failure(self, error: OSError) -> BackendError:
        return BackendError(f"cannot write the journal {self._path}: {error.strerror}; free the disk and run again")


def cut_torn_line(file: int) -> None:
    """Drop what a crash left of a last line: no reader has consumed it, and a new line must not join it.

    Args:
        file: the descriptor of a file of lines, open for reading and writing.

    Raises:
        OSError: the file cannot be read or cut.
    """
    size = end = os.fstat(file).st_size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(file, end)


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"cannot read the journal {path}: {error.strerror}; check the run directory")


def _fact(record: Record) -> tuple[object, ...]:
    return tuple(map(record.get, _WHAT))


def _newest_facts(path: Path) -> frozenset[tuple[object, ...]]:
    """The facts of the newest steps that a journal tells of; a node that goes on tells none of earlier ones again."""
    facts: dict[int, set[tuple[object, ...]]] = {}
    for record in records(path):
        step = record.get("step")
        if isinstance(step, int):
            facts.setdefault(step, set()).add(_fact(record))
            while len(facts) > _REMEMBERED_STEPS:
                del facts[min(facts)]
    return frozenset().union(*facts.values())


def records(path: Path) -> Iterator[Record]:
    """The records of a journal, one at a time: a long run's do not fit into a worker beside its work.

    A file that is not there yet has no records, and a torn last line is none.

    Raises:
        DataError: a whole line is not a record: the file was damaged after it was written.
    """
    try:
        with path.open("rb") as file:
            yield from _parsed(path, file, 0)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _unreadable(path, error) from error


def read(path: Path, offset: int = 0) -> tuple[list[Record], int]:
    """The records from byte `offset` on, and the offset to go on from; a torn last line waits for its rest.

    A file that is not there yet has no records.

    Raises:
        DataError: a whole line is not a record: the file was damaged after it was written.
    """
    try:
        with path.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return [], offset
    except OSError as error:
        raise _unreadable(path, error) from error
    whole = data[: data.rfind(b"\n") + 1]
    return list(_parsed(path, whole.splitlines(keepends=True), offset)), offset + len(whole)


def _parsed(path: Path, lines: Iterable[bytes], offset: int) -> Iterator[Record]:
    """The records of lines that begin at byte `offset`, but for a torn last one."""
    for line in lines:
        if not line.endswith(b"\n"):
            return
        try:
            yield _record(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise DataError(f"{path} is damaged at byte {offset}: {error}; run again from the start") from error
        offset += len(line)


def _record(line: bytes) -> Record:
    """A line's record, with what every record has.

    Raises:
        MsgspecError, UnicodeDecodeError: it is none.
    """
    record = msgspec.json.decode(line, type=Record)
    for name, kinds in _COMMON.items():
        if not isinstance(record.get(name), kinds):
            raise msgspec.ValidationError(f"a record needs {name!r}, and this line has {record.get(name)!r}")
    return record
