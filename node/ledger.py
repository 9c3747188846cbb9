"""The ledger of one step: what this node signed and what it heard, in the order in which it happened.

Each record is on its way to the kernel before the message it holds leaves the process, so that a node that is started
again says nothing else in a slot in which it has spoken.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path

from node.errors import BackendError

_HEAD = struct.Struct("<IBI")
"""Length of the content, kind, and the neighbour that it came from."""

SIGNED, HEARD = 0, 1
Entry = tuple[int, int, bytes]
"""(kind, neighbour, content); the neighbour of what we signed ourselves is our own id."""


class Ledger:
    """Appends records to one file.

    Args:
        path: the file; appended to if it exists, after its last whole record.

    Raises:
        BackendError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            whole = _whole(path.read_bytes()) if path.exists() else 0
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.ftruncate(self._file, whole)
            os.lseek(self._file, whole, os.SEEK_SET)
        except OSError as error:
            raise self._failure(error) from error

    def append(self, kind: int, via: int, content: bytes) -> None:
        """Add one record; the kernel has it on return.

        Raises:
            BackendError: the disk is full.
        """
        record = _HEAD.pack(len(content), kind, via) + content
        try:
            written = os.write(self._file, record)
            while written < len(record):
                written += os.write(self._file, record[written:])
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def _failure(self, error: OSError) -> BackendError:
        return BackendError(f"cannot write the ledger {self._path}: {error.strerror}; free the disk and resume")


def read(path: Path) -> list[Entry]:
    """All whole records; a torn last one was of a message that never left. No file: none.

    Raises:
        BackendError: it cannot be read.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackendError(f"cannot read the ledger {path}: {error.strerror}; check the run directory") from error
    found, place, end = [], 0, _whole(data)
    while place < end:
        size, kind, via = _HEAD.unpack_from(data, place)
        place += _HEAD.size
        found.append((kind, via, data[place : place + size]))
        place += size
    return found


def _whole(data: bytes) -> int:
    """Where the last whole record ends."""
    place = 0
    while place + _HEAD.size <= len(data):
        end: int = place + _HEAD.size + _HEAD.unpack_from(data, place)[0]
        if end > len(data):
            break
        place = end
    return place
