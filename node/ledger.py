"""The ledger of one step: what this node signed and what it heard, in the order in which it happened.

Each record is on its way to the kernel before the message it holds leaves the process, so that a node that is started
again says nothing else in a slot in which it has spoken.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from zlib import crc32

from node.errors import BackendError, CheckpointError

FORMAT = 2
"""Ledgers of format 1 had neither this line nor checksums."""
_MAGIC = b"BTARD ledger "
_FIRST = _MAGIC + bytes((FORMAT,))
_HEAD = struct.Struct("<IBII")
"""Length of the content, kind, the neighbour that it came from, and the content's CRC-32."""
_CHECK = struct.Struct("<I")
"""CRC-32 of the head: a length that is damaged must not pass for a record that was cut off."""
_BEFORE = _HEAD.size + _CHECK.size

SIGNED, HEARD = 0, 1
Entry = tuple[int, int, bytes]
"""(kind, neighbour, content); the neighbour of what we signed ourselves is our own id."""


class Ledger:
    """Appends records to one file.

    Args:
        path: the file; appended to if it exists, after its last whole record.

    Raises:
        BackendError: it cannot be opened.
        CheckpointError: what is in it already is damaged, or of another format.
    """

    def __init__(self, path: Path | str) -> None:
        self._path, self._file = path, -1
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            there = os.fstat(self._file).st_size
            whole = _whole(path, os.pread(self._file, there, 0)) if there else 0
            os.ftruncate(self._file, whole)
            os.lseek(self._file, whole, os.SEEK_SET)
            if not whole:
                self._write(_FIRST)
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except CheckpointError:
            self.close()
            raise

    def append(self, kind: int, via: int, content: bytes) -> None:
        """Add one record; the kernel has it on return.

        Raises:
            BackendError: the disk is full.
        """
        head = _HEAD.pack(len(content), kind, via, crc32(content))
        try:
            self._write(head + _CHECK.pack(crc32(head)) + content)
        except OSError as error:
            raise self._failure(error) from error

    def _write(self, data: bytes) -> None:
        written = os.write(self._file, data)
        while written < len(data):
            written += os.write(self._file, data[written:])

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _failure(self, error: OSError) -> BackendError:
        return BackendError(f"cannot write the ledger {self._path}: {error.strerror}; free the disk and resume")


def read(path: Path) -> list[Entry]:
    """All whole records; a torn last one was of a message that never left. No file: none.

    Raises:
        BackendError: it cannot be read.
        CheckpointError: it is damaged before its end, or of another format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackendError(f"cannot read the ledger {path}: {error.strerror}; check the run directory") from error
    found, place, end = [], len(_FIRST), _whole(path, data)
    while place < end:
        size, kind, via, _ = _HEAD.unpack_from(data, place)
        place += _BEFORE
        found.append((kind, via, data[place : place + size]))
        place += size
    return found


def _whole(path: Path | str, data: bytes) -> int:
    """Where the last whole record ends; 0 where not even the first line is whole.

    A process that is killed leaves the beginning of what it was writing. Anything else that is no record was damaged
    afterwards: what this node has signed may be in it, or behind it.

    Raises:
        CheckpointError: there is such a thing, or the file is of another format.
    """
    if data[: len(_FIRST)] != _FIRST[: len(data)]:
        raise _unusable(path, data)
    if len(data) < len(_FIRST):
        return 0
    place = len(_FIRST)
    while place + _BEFORE <= len(data):
        head = data[place : place + _HEAD.size]
        size, _, _, check = _HEAD.unpack(head)
        start = place + _BEFORE
        if _CHECK.unpack_from(data, place + _HEAD.size)[0] != crc32(head):
            raise _damaged(path, place)
        if start + size > len(data):
            break
        if crc32(data[start : start + size]) != check:
            raise _damaged(path, place)
        place = start + size
    return place


def _damaged(path: Path | str, place: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged at byte {place}: what this node has signed may be lost, and it could convict itself; "
        "restore the file from a copy, or leave the node off (the others go on without it)"
    )


def _unusable(path: Path | str, data: bytes) -> CheckpointError:
    if data.startswith(_MAGIC):
        found = data[len(_MAGIC)]
        return CheckpointError(
            f"{path} is a ledger of format {found}, this program reads {FORMAT}; use the release that wrote it"
        )
    return CheckpointError(
        f"{path} is no ledger of format {FORMAT}: of an earlier release, or damaged at its beginning; use the release "
        "that wrote it, or restore the file from a copy"
    )
