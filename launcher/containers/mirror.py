"""Copies what nodes write, as it grows: journals, evidence, final parameters. Nothing else, nothing through a link, and
no more than an honest node could need.

A node's volume is its own to fill; whatever else an attacker puts there stays there.

`python -m btard.launcher.containers.mirror PEERS STEPS DIMENSION` prints every change of all nodes' files as a line of
JSON, for a launcher outside: it has to listen before the first node speaks, so it imports little.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from itertools import chain, islice, product
from pathlib import Path

import msgspec

from btard.launcher.containers import places
from btard.launcher.files import disk_error
from btard.node.errors import DataError, WireError
from btard.node.storage.records import JOURNAL_BYTES, open_regular, shown

JOURNAL = "journal.jsonl"
_EVIDENCE = re.compile(r"ban-\d{1,19}-\d{1,19}-\d{1,3}\.evidence|return-\d{1,19}-\d{1,3}\.certificate")
_SIGNED = ("proposal", "approval")
"""What a node leaves where all meet."""
_PATHS = re.compile(
    rf"{places.CEREMONY.name}/\d{{1,3}}\.(?:{'|'.join(_SIGNED)})|"
    rf"nodes/\d{{1,3}}/(?:{re.escape(JOURNAL)}|parameters\.f32|certificate|exit|evidence/(?:{_EVIDENCE.pattern}))"
)
SWEEP = ""
"""The path of a change that changes nothing: all files have been looked at once more."""
_CHUNK_BYTES = 1 << 20
_WORD_BYTES = 64
_SIGNED_BYTES = 1000
_MOST_ENTRIES = 4096
"""Of an evidence folder: a run has far fewer bans."""
_SMALL_BYTES = 1 << 26
"""Of a certificate, and of evidence besides the vectors in it: messages of all peers."""
_LARGEST_VECTOR = 1 << 31
"""Bytes, where the model's size is not known."""
_LOOK_S = 0.2


class Limits(msgspec.Struct, frozen=True):
    """The most bytes of each kind of file, and of all files of one node together."""

    journal: int
    parameters: int
    evidence: int
    in_all: int


def limits(steps: int, dimension: int | None) -> Limits:
    """What an honest node stays far below.

    Args:
        steps: of the run.
        dimension: D of its model; None: not known here.
    """
    vector = _LARGEST_VECTOR if dimension is None else 4 * dimension
    journal = min(JOURNAL_BYTES, _SMALL_BYTES + (steps << 14))
    evidence = _SMALL_BYTES + 16 * vector
    return Limits(journal, vector, evidence, journal + 2 * vector + 4 * evidence)


class Change(msgspec.Struct, frozen=True):
    """Some bytes of one file.

    Args:
        path: relative to the run directory.
        offset: where the bytes belong.
        data: at most a megabyte.
        problem: one line instead of data: the file is copied no further.
    """

    path: str
    offset: int
    data: bytes
    problem: str = ""


class Mirror:
    """Finds what is new since the last look.

    Args:
        volumes: what each node writes to; in it, its files lie as in the run directory.
        most: what may be copied.
        root: where the place is mounted at which all meet.
    """

    def __init__(self, volumes: Mapping[int, Path], most: Limits, root: Path) -> None:
        self._volumes, self._most, self._root = volumes, most, root
        self._seen: dict[str, int] = {}
        self._copied = dict.fromkeys(volumes, 0)
        self._refused: set[str] = set()

    def changes(self) -> Iterator[Change]:
        """Everything that was written since; a journal comes after the files that its new lines speak of."""
        for node, kind in product(self._volumes, _SIGNED):
            path = f"{places.CEREMONY.name}/{node}.{kind}"
            yield from self._grown(node, self._root, path, self._size(self._root, path))
        for node, volume in self._volumes.items():
            until = self._size(volume, f"nodes/{node}/{JOURNAL}")
            for name in ("exit", "certificate", "parameters.f32", *_evidence(volume, f"nodes/{node}/evidence")):
                path = f"nodes/{node}/{name}"
                yield from self._grown(node, volume, path, self._size(volume, path))
            yield from self._grown(node, volume, f"nodes/{node}/{JOURNAL}", until)

    def _size(self, volume: Path, path: str) -> int:
        """Apparent bytes of a regular file, 0 for anything else: a sparse file counts in full."""
        try:
            descriptor = open_regular(volume, path)
        except (FileNotFoundError, DataError):
            return 0
        try:
            return os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)

    def _grown(self, node: int, volume: Path, path: str, until: int) -> Iterator[Change]:
        seen = self._seen.get(path, 0)
        shrunk = path.endswith(JOURNAL) and 0 < until < seen  # other files are written anew, and only once
        if path in self._refused or not (until > seen or shrunk):
            return
        if problem := self._excess(node, path, until):
            self._refused.add(path)
            yield Change(path, seen, b"", problem)
            return
        while seen < until:
            data = _read(volume, path, seen, min(_CHUNK_BYTES, until - seen))
            whole = data.rfind(b"\n") + 1
            if path.endswith(JOURNAL) and (whole or len(data) < _CHUNK_BYTES):
                data = data[:whole]  # its writer may take half a line back
            if not data:
                return
            yield Change(path, seen, data)
            seen += len(data)
            self._seen[path] = seen
            self._copied[node] += len(data)

    def _excess(self, node: int, path: str, size: int) -> str:
        """Why a file of this size is not copied; empty: it is."""
        seen, name = self._seen.get(path, 0), path.rpartition("/")[2]
        most = {JOURNAL: self._most.journal, "parameters.f32": self._most.parameters, "certificate": _SMALL_BYTES,
                "exit": _WORD_BYTES}.get(name, self._most.evidence)  # fmt: skip
        if name.endswith(_SIGNED):
            most = _SIGNED_BYTES
        if size < seen:
            return f"{path} has shrunk from {seen} to {size} bytes; no more of it is copied"
        if size > most:
            return f"{path} has {size} bytes, more than the {most} that it may have; no more of it is copied"
        if self._copied[node] + size - seen > self._most.in_all:
            return f"{path}: node {node} has written more than {self._most.in_all} bytes; no more of it is copied"
        return ""


def take(run_dir: Path, change: Change, note: Callable[[str], None]) -> int | None:
    """Apply a change, and say what is copied no further; returns whose folder it is in, None where all meet.

    Raises:
        WireError: the path is not one that nodes write.
        BackendError: the disk is full.
    """
    if change.problem:
        note(f"warning: {change.problem}")
    apply(run_dir, change)
    folder, name = change.path.split("/")[:2]
    return int(name) if folder != places.CEREMONY.name else None


def apply(run_dir: Path, change: Change) -> None:
    """Write a change into a run directory; applying it twice does no harm.

    Raises:
        WireError: the path is not one that nodes write.
        BackendError: the disk is full.
    """
    if _PATHS.fullmatch(change.path) is None or not 0 <= change.offset <= _LARGEST_VECTOR << 5:
        raise WireError(f"a node wrote {shown(change.path)!r}, which is no file of a run")
    if not change.data:
        return
    target = run_dir / change.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            end = change.offset + len(change.data)
            if change.data.count(0) == len(change.data) and os.fstat(descriptor).st_size <= change.offset:
                os.ftruncate(descriptor, end)  # a hole stays a hole
                return
            written = 0
            while written < len(change.data):
                written += os.pwrite(descriptor, change.data[written:], change.offset + written)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise disk_error(error, target) from error


def _evidence(volume: Path, folder: str) -> list[str]:
    """The evidence files that are there; a folder of millions of entries is not gone through."""
    names: list[str] = []
    with suppress(OSError), os.scandir(volume / folder) as entries:
        names = [entry.name for entry in islice(entries, _MOST_ENTRIES)]
    return [f"evidence/{name}" for name in sorted(names) if _EVIDENCE.fullmatch(name)]


def _read(volume: Path, path: str, offset: int, count: int) -> bytes:
    try:
        descriptor = open_regular(volume, path)
    except (FileNotFoundError, DataError):
        return b""
    try:
        return os.pread(descriptor, count, offset)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def main(peers: int, steps: int, dimension: int, root: Path = places.ROOT) -> None:
    """Print what nodes write until whoever reads it ends us.

    Args:
        peers, steps: of the run.
        dimension: D of its model; 0: not known.
        root: where the volumes are mounted.
    """
    volumes = {node: places.volume_of(root, node) for node in range(peers)}
    source = Mirror(volumes, limits(steps, dimension or None), root)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    encode = msgspec.json.Encoder().encode
    with suppress(BrokenPipeError):
        while True:
            for change in chain(source.changes(), (Change(SWEEP, 0, b""),)):
                sys.stdout.buffer.write(encode(change) + b"\n")
            sys.stdout.buffer.flush()
            time.sleep(_LOOK_S)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered has no reader


if __name__ == "__main__":
    counts = [int(each) for each in sys.argv[1:]]
    main(counts[0], counts[1], counts[2])
