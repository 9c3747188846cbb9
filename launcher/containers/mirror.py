"""Copies what nodes write, as it grows: journals, evidence, final parameters. Nothing else, and nothing through a link.

A node's directory is its own to fill; whatever else an attacker puts there stays there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from launcher.files import disk_error
from node.errors import WireError

_NAMES = re.compile(r"journal\.jsonl|parameters\.f32|certificate|exit|evidence/ban-\d+-\d+-\d+\.evidence")
_PATHS = re.compile(rf"nodes/\d{{1,3}}/(?:{_NAMES.pattern})")
SWEEP = ""
"""The path of a change that changes nothing: all files have been looked at once more."""
_CHUNK_BYTES = 1 << 20
_MOST_BYTES = 1 << 31
"""Of one file: more is not copied."""


class Change(msgspec.Struct, frozen=True):
    """Some bytes of one file.

    Args:
        path: relative to the run directory.
        offset: where the bytes belong.
        data: at most a megabyte.
    """

    path: str
    offset: int
    data: bytes


class Mirror:
    """Finds what is new since the last look.

    Args:
        sources: each node's directory; it may appear later.
    """

    def __init__(self, sources: Mapping[int, Path]) -> None:
        self._sources = sources
        self._seen: dict[str, int] = {}

    def changes(self) -> Iterator[Change]:
        """Everything that was written since; a journal comes after the files that its new lines speak of."""
        for node, directory in self._sources.items():
            until = _size(directory / "journal.jsonl")
            for name in _present(directory):
                yield from self._grown(node, directory, name, _size(directory / name))
            yield from self._grown(node, directory, "journal.jsonl", until)

    def _grown(self, node: int, directory: Path, name: str, until: int) -> Iterator[Change]:
        path = f"nodes/{node}/{name}"
        while (offset := self._seen.get(path, 0)) < until:
            data = _read(directory / name, offset, min(_CHUNK_BYTES, until - offset))
            if not data:
                return
            self._seen[path] = offset + len(data)
            yield Change(path, offset, data)


def apply(run_dir: Path, change: Change) -> None:
    """Write a change into a run directory; applying it twice does no harm.

    Raises:
        WireError: the path is not one that nodes write.
        BackendError: the disk is full.
    """
    if _PATHS.fullmatch(change.path) is None or not 0 <= change.offset <= _MOST_BYTES:
        raise WireError(f"a node wrote {change.path[:80]!r}, which is no file of a run")
    target = run_dir / change.path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            written = 0
            while written < len(change.data):
                written += os.pwrite(descriptor, change.data[written:], change.offset + written)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise disk_error(error, target) from error


def _present(directory: Path) -> list[str]:
    """The files besides the journal that are there."""
    names = ["exit", "certificate", "parameters.f32"]
    with suppress(OSError):
        names += [f"evidence/{entry.name}" for entry in sorted((directory / "evidence").iterdir())]
    return [name for name in names if _NAMES.fullmatch(name)]


def _size(path: Path) -> int:
    """Bytes of a regular file, 0 for anything else."""
    try:
        found = path.lstat()
    except OSError:
        return 0
    return min(found.st_size, _MOST_BYTES) if stat.S_ISREG(found.st_mode) else 0


def _read(path: Path, offset: int, count: int) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    try:
        return os.pread(descriptor, count, offset)
    finally:
        os.close(descriptor)
