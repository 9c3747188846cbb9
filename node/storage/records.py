"""Journal records and files of a run directory as a stranger may have written them: typed, confined, bounded.

Whoever judges a run reads what Byzantine nodes wrote. A record is one of its node only if it lies in that node's
folder, and its fields have the types below; a path leads to a regular file inside the run directory, through no
symbolic link; a line and a file have a largest size. What breaks these rules costs one line that names it, and the
rest is read on.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta

from btard.node.errors import DataError
from btard.node.limits import MAX_PEERS
from btard.node.protocol.adjudication.offences import Standing
from btard.node.storage.journal import Record

LINE_BYTES = 8 << 20
"""Longest record; the steps of an attacker in a run of a million steps take less."""
JOURNAL_BYTES = 1 << 30
"""How much of a journal is read."""
MAX_PROBLEMS = 20
"""Problems of one journal that are named one by one."""
_NAMING = ("peer", "accused", "accuser", "peers", "active", "contributors", "suspects")
"""Fields that name peers."""
_CHUNK_BYTES = 1 << 20
_MANY_FILES = 1000
_SHOWN = 200

Peer: TypeAlias = Annotated[int, Meta(ge=0, lt=MAX_PEERS)]
Step: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 53)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=1 << 53)]
Seconds: TypeAlias = Annotated[float, Meta(ge=0, le=1e11)]
Word: TypeAlias = Annotated[str, Meta(max_length=256)]
Text: TypeAlias = Annotated[str, Meta(max_length=1 << 16)]
Address: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9.:\[\]-]{1,128}$")]
Place: TypeAlias = Annotated[str, Meta(min_length=1, max_length=4096)]
Digest: TypeAlias = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Peers: TypeAlias = Annotated[tuple[Peer, ...], Meta(max_length=MAX_PEERS)]


class Entry(msgspec.Struct, frozen=True):
    """What every record has; `node` is the genesis id of the node in whose folder it lies."""

    time: Seconds
    node: Peer


class Sent(Entry, frozen=True):
    """Bytes sent so far."""

    bulk_bytes: Count
    control_bytes: Count
    publication_bytes: Count


class Committed(Sent, frozen=True):
    """A step is final at this node."""

    step: Step
    attempt: Step
    contributors: Peers
    active: Peers
    validators: dict[Word, Peer]
    seconds: Seconds
    phases: dict[Word, Seconds]
    loss: float | None
    parameter_digest: Digest
    state_digest: Digest


class Evaluated(Entry, frozen=True):
    """Correct answers on this node's slice of the test items."""

    step: Step
    correct: Count
    count: Count


class Banned(Entry, frozen=True):
    """A certified verdict and its evidence file."""

    step: Step
    attempt: Step
    peer: Peer
    reason: Word
    accuser: Peer | None
    removed: bool
    standing: Standing
    evidence: Digest
    path: Place


class Returned(Entry, frozen=True):
    """A certified return and its certificate file."""

    step: Step
    attempt: Step
    peer: Peer
    evidence: Digest
    path: Place


class Entered(Entry, frozen=True):
    """A newcomer's probation has begun."""

    step: Step
    attempt: Step
    peer: Peer
    key: Digest
    sponsor: Peer | None


class Lapsed(Entry, frozen=True):
    """A newcomer's probation has ended without a place."""

    step: Step
    attempt: Step
    peer: Peer
    reason: Word


class Finished(Sent, frozen=True):
    """This node's last step is committed; its parameters lie in a file."""

    step: Step
    parameter_digest: Digest
    path: Place


class Accused(Entry, frozen=True):
    """A charge was judged."""

    step: Step
    attempt: Step
    kind: Word
    accused: Peer | None
    part: Step | None
    accuser: Peer | None


class Undone(Entry, frozen=True):
    """An undo step."""

    step: Step
    attempt: Step
    suspects: Peers
    lies: tuple[tuple[Step, Peer], ...]
    to_step: Step | None
    lost: Count
    older: bool


class Voided(Entry, frozen=True):
    """An attempt without effect but for the removals."""

    step: Step
    attempt: Step
    removals: Peers


class Suspected(Entry, frozen=True):
    """A deadline passed without a message."""

    step: Step
    attempt: Step
    phase: Word
    peer: Peer


class Disputed(Entry, frozen=True):
    """A dispute began."""

    step: Step
    attempt: Step
    cause: Text


class Resolved(Entry, frozen=True):
    """A dispute ended."""

    step: Step
    attempt: Step
    outcome: Word
    removals: Peers


class Probation(Entry, frozen=True):
    """A gradient of a peer on probation was found correct."""

    step: Step
    attempt: Step
    peer: Peer
    correct: Count
    needed: Count


class Rejoining(Entry, frozen=True):
    """This node, which was gone, follows on probation."""

    step: Step


class Expelled(Entry, frozen=True):
    """This node is out."""

    step: Step
    reason: Word


class Halted(Entry, frozen=True):
    """This node could not go on."""

    step: Step
    phase: Word
    peer: Peer | None
    problem: Text


class Failed(Entry, frozen=True):
    """This node ended with an error."""

    error: Text


class Resumed(Entry, frozen=True):
    """This node went on after a restart."""

    step: Step
    attempt: Step
    heard: Count


class Attacked(Entry, frozen=True):
    """The steps that this node's attack struck, by its own account."""

    steps: tuple[Step, ...]


class Scenario(Entry, frozen=True):
    """Something happened from outside."""

    action: Word
    peers: Peers
    text: Text
    at_s: Seconds


class Links(Entry, frozen=True):
    """Figures of the link to a peer."""

    peer: Peer
    messages: Count
    held: Count
    requested_delay_s: float | None
    measured_delay_s: float | None
    requested_loss: float | None
    measured_loss: float | None
    requested_rate: float | None
    measured_rate: float | None
    rtt_s: float | None


class Environment(Entry, frozen=True):
    """What this node's gradients are computed with; a certified state covers a digest of it."""

    # Words, or pairs of them, as whoever reads them checks: a tuple in such a union crashes msgspec's decoder.
    facts: Annotated[dict[Word, Word | int | bool | Annotated[tuple[Any, ...], Meta(max_length=64)]],
                     Meta(max_length=64)]  # fmt: skip


class Greeted(Entry, frozen=True):
    """Enough peers have greeted this node."""

    peers: Peers


class Metrics(Entry, frozen=True):
    """Where this node serves its metrics, as HOST:PORT."""

    address: Address


class Traffic(Entry, frozen=True):
    """Bytes sent by receiver and kind."""

    sent: Annotated[dict[Word, Annotated[dict[Word, Count], Meta(max_length=64)]], Meta(max_length=MAX_PEERS)]


TYPES: dict[str, type[Entry]] = {
    each.__name__.lower(): each
    for each in (Committed, Evaluated, Banned, Returned, Entered, Lapsed, Finished, Accused, Undone, Voided, Suspected,
                 Disputed, Resolved, Probation, Rejoining, Expelled, Halted, Failed, Resumed, Attacked, Scenario, Links,
                 Environment, Greeted, Metrics, Traffic)
}  # fmt: skip
"""The records that somebody reads, by their event; others need no more than every record has."""


@dataclass(frozen=True, slots=True)
class Line:
    """One record.

    Args:
        number: of its line in the journal, from 1.
        event: its event.
        record: as it was written.
        entry: the same, typed.
    """

    number: int
    event: str
    record: Record
    entry: Entry


def typed(data: bytes, node: int) -> tuple[Record, Entry]:
    """A line of a node's journal as a record, plain and typed.

    Args:
        data: the line.
        node: in whose folder it lies.

    Raises:
        DataError: what is wrong with it.
    """
    try:
        record = msgspec.json.decode(data, type=dict[str, Any])
        event = record.get("event")
        if not isinstance(event, str):
            raise DataError("it has no event")
        if record.get("node") != node or isinstance(record.get("node"), bool):
            raise DataError(f"it is said to be of node {shown(record.get('node'))}, in the folder of node {node}")
        return record, msgspec.convert(record, type=TYPES.get(event, Entry))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:  # a long number is a ValueError
        raise DataError(shown(error)) from error


class JournalReader:
    """Reads one node's journal, from where the last look ended.

    Args:
        root: the directory that holds it; nothing outside is ever opened.
        name: of the journal in it, `nodes/3/journal.jsonl`.
        node: whose it is: every record has to bear this id.
        peers: of the roster; records that name others are refused.

    `problems` holds one line for each thing that broke the rules, the first MAX_PROBLEMS of them.
    """

    def __init__(self, root: Path, name: str, node: int, peers: int = MAX_PEERS) -> None:
        self.problems: list[str] = []
        self.refused = 0
        self._root, self._name, self._node, self._peers = root, name, node, peers
        self._offset = self._lines = 0
        self._overlong = False
        self._over = False

    def look(self) -> Iterator[Line]:
        """The whole records since the last look; a torn last line waits for its rest. No file: no records."""
        if self._over:
            return
        try:
            descriptor = open_regular(self._root, self._name)
        except FileNotFoundError:
            return
        except DataError as error:
            self._over = True
            self._problem(str(error))
            return
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size < self._offset:
                self._over = True
                self._problem(f"{self._name}: it has shrunk below what was read; nothing more of it is")
                return
            yield from self._records(file.fileno())

    def refuse(self, line: Line, problem: str) -> None:
        """Count a record as refused after all, for its reader's own reasons."""
        self._problem(f"{self._name}, record {line.number}: {problem}")

    def _records(self, descriptor: int) -> Iterator[Line]:
        for data in self._whole_lines(descriptor):
            self._lines += 1
            where = f"{self._name}, record {self._lines}"
            if data is None:
                self._problem(f"{where}: it is longer than {LINE_BYTES} bytes")
                continue
            try:
                record, entry = typed(data, self._node)
                self._check_roster(record)
            except DataError as error:
                self._problem(f"{where}: {error}")
                continue
            yield Line(self._lines, record["event"], record, entry)

    def _whole_lines(self, descriptor: int) -> Iterator[bytes | None]:
        """Lines with their ends, None for one that is too long; `_offset` stands behind the last of them."""
        held = b""
        while True:
            start = self._offset + len(held)
            if start >= JOURNAL_BYTES:
                self._over = True
                self._problem(f"{self._name}: only its first {JOURNAL_BYTES} bytes are read")
                return
            try:
                chunk = os.pread(descriptor, min(_CHUNK_BYTES, JOURNAL_BYTES - start), start)
            except OSError as error:
                self._over = True
                self._problem(f"{self._name}: it cannot be read: {error.strerror}")
                return
            if not chunk:
                return
            if self._overlong:
                # The rest of such a line is skipped, not kept: a file without ends of lines must not fill the memory.
                skipped = chunk.find(b"\n") + 1 or len(chunk)
                self._offset += skipped
                if chunk[skipped - 1 : skipped] == b"\n":
                    self._overlong = False
                    yield None
                continue
            *lines, held = (held + chunk).split(b"\n")
            for line in lines:
                self._offset += len(line) + 1
                yield None if len(line) > LINE_BYTES else line
            if len(held) > LINE_BYTES:
                self._offset, self._overlong, held = self._offset + len(held), True, b""

    def _check_roster(self, record: Record) -> None:
        for field in _NAMING:
            named = record.get(field)
            for peer in named if isinstance(named, list) else (named,):
                if isinstance(peer, int) and peer >= self._peers:
                    raise DataError(f"its {field} {peer} is not in the roster of {self._peers}")

    def _problem(self, text: str) -> None:
        self.refused += 1
        if self.refused <= MAX_PROBLEMS:
            self.problems.append(text)
        elif self.refused == MAX_PROBLEMS + 1:
            self.problems.append(f"{self._name}: there are more malformed records; {MAX_PROBLEMS} are named")


def open_regular(root: Path, name: str) -> int:
    """Open a regular file below a directory for reading; returns its descriptor.

    No component may be a symbolic link, and nothing is waited for: a FIFO or a device is refused.

    Args:
        root: the directory; how it is reached is the caller's affair.
        name: relative to it, with `/` between its components.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it is no regular file below the directory, or cannot be opened; the message begins with its name.
    """
    parts = name.split("/")
    if not name or "\0" in name or name.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise DataError(f"{shown(name)}: the path does not stay inside the run directory")
    try:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts[:-1]:
                below = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
                os.close(folder)
                folder = below
            # A FIFO would make a plain open wait for its writer.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            descriptor = os.open(parts[-1], flags, dir_fd=folder)
        finally:
            os.close(folder)
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "no file name"
        raise DataError(f"{shown(name)}: it is no regular file of the run directory ({problem})") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise DataError(f"{shown(name)}: it is no regular file")
    return descriptor


def names(run_dir: Path, folder: str) -> list[str]:
    """What lies in a folder of a run directory, ascending: at most so many names, and none behind a symbolic link."""
    path = run_dir
    for part in folder.split("/"):
        path = path / part
        if path.is_symlink() or not path.is_dir():
            return []
    found: list[str] = []
    with os.scandir(path) as entries:
        for entry in entries:
            found.append(entry.name)
            if len(found) >= _MANY_FILES:
                break
    return sorted(found)


def read_regular(root: Path, name: str, limit: int) -> bytes:
    """The content of a regular file below a directory, as `open_regular` finds it.

    Args:
        root, name: as there.
        limit: most bytes that it may have.

    Raises:
        FileNotFoundError: there is no such file.
        DataError: it cannot be read, or is larger.
    """
    with os.fdopen(open_regular(root, name), "rb", buffering=0) as file:
        # By its size first: a sparse file costs its writer nothing.
        if (size := os.fstat(file.fileno()).st_size) > limit:
            raise DataError(f"{shown(name)}: its {size} bytes are more than the {limit} that it may have")
        pieces, left = [], limit
        try:
            while left > 0 and (piece := os.read(file.fileno(), min(left, _CHUNK_BYTES))):
                pieces.append(piece)
                left -= len(piece)
        except OSError as error:
            raise DataError(f"{shown(name)}: it cannot be read: {error.strerror}") from error
    return b"".join(pieces)


def shown(value: object) -> str:
    """Anything that a stranger wrote, short and printable."""
    text = str(value)
    return printable(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")


def printable(text: str) -> str:
    """A text without escape sequences and ends of lines, which would write over what else is on a terminal."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape", "replace").decode() for char in text)
