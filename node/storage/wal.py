"""The ledger of one step: what this node signed and what it heard, in the order in which it happened.

What is appended waits in memory until something is to leave the process that rests on it; then all of it is written at
once, as one *batch*, and synced. So a node that is started again, after a kill or a loss of power, has heard and said
all that anything it ever sent rests on, and says nothing else in a slot in which it has spoken.

A batch begins at a sector, and each of its sectors begins with a byte that is not 0: a sector that the disk never got
reads as zeros, or lies behind the file's end. Only the last batch can have such sectors, since the one before it was
synced first; it is dropped then, and nothing that rested on it can have left. Any other difference is damage: what this
node has signed may be in it, or behind it, and the ledger is refused.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from zlib import crc32

from btard.node.errors import BackendError, CheckpointError
from btard.node.storage.disk import Disk

FORMAT = 3
"""Ledgers of format 1 had no checksums, those of format 2 no batches."""
SECTOR = 512
"""Bytes that a disk writes as a whole or not at all."""
_MAGIC = b"BTARD ledger "
_OPENING = (_MAGIC + bytes((FORMAT,))).ljust(SECTOR, b"\0")
_LOST = bytes(SECTOR)
_FIRST, _NEXT = 0xB5, 0xC6
"""What the first sector of a batch begins with, and each further one."""
_SHARE = SECTOR - 1
_BATCH, _CHECK = struct.Struct("<II"), struct.Struct("<I")
"""Length of a batch's records and their CRC-32; CRC-32 of these two: a damaged length must not pass for a cut."""
_BEFORE = _BATCH.size + _CHECK.size
_HEAD = struct.Struct("<IBI")
"""Length of a record's content, its kind, the neighbour that it came from."""

SIGNED, HEARD = 0, 1
Entry = tuple[int, int, bytes]
"""(kind, neighbour, content); the neighbour of what we signed ourselves is our own id."""


class WriteAheadLog:
    """Appends records to one file.

    Args:
        path: the file; appended to if it exists, after its last whole batch.
        disk: that it is on.

    Raises:
        BackendError: it cannot be opened.
        CheckpointError: what is in it already is damaged, or of another format.
    """

    def __init__(self, path: Path | str, disk: Disk | None = None) -> None:
        self._path, self._disk, self._file = path, disk or Disk(), -1
        self._waiting: list[bytes] = []
        self._written = self._unsynced = self.said = False
        """Since the last sync: something was written; a batch was; something of our own was appended."""
        try:
            self._file = self._disk.open(str(path))
            there = os.fstat(self._file).st_size
            whole = _walk(path, os.pread(self._file, there, 0))[1]
            if whole < there:
                # Synced at once: sectors of a torn batch must not show through the one that is written over it.
                self._disk.truncate(self._file, whole)
                self._disk.sync(self._file)
            os.lseek(self._file, whole, os.SEEK_SET)
            if not whole:
                self._disk.write(self._file, _OPENING)
                self._written = True
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        except CheckpointError:
            self.close()
            raise

    def append(self, kind: int, via: int, content: bytes) -> None:
        """Add one record, in memory; `write` or `sync` puts it into the file."""
        self._waiting.append(_HEAD.pack(len(content), kind, via) + content)
        self.said |= kind == SIGNED

    def write(self) -> None:
        """Give what waits to the kernel: a killed process has not forgotten it, after a loss of power it may be gone.

        Raises:
            BackendError: the disk is full, or fails.
        """
        if not self._waiting:
            return
        if self._unsynced:  # behind a batch that the disk may lose there must be none that it has
            self._wait()
        batch, self._waiting = _sectors(b"".join(self._waiting)), []
        try:
            self._disk.write(self._file, batch)
        except OSError as error:
            raise self._failure(error) from error
        self._written = self._unsynced = True

    def sync(self) -> None:
        """On return the disk has all records; does nothing if it has them.

        Raises:
            BackendError: the disk is full, or fails.
        """
        self.write()
        if self._written:
            self._wait()
        self.said = False

    def _wait(self) -> None:
        try:
            self._disk.sync(self._file)
        except OSError as error:
            raise self._failure(error) from error
        self._written = self._unsynced = False

    def close(self) -> None:
        """Close the file, without what waits; a second call does nothing."""
        if self._file >= 0:
            self._disk.close(self._file)
            self._file = -1

    def _failure(self, error: OSError) -> BackendError:
        return BackendError(f"cannot write the ledger {self._path}: {error.strerror}; free the disk and resume")


def read(path: Path) -> list[Entry]:
    """All records of whole batches; what a torn last one held had led to nothing that left. No file: none.

    Raises:
        BackendError: it cannot be read.
        CheckpointError: it is damaged, or of another format.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BackendError(f"cannot read the ledger {path}: {error.strerror}; check the run directory") from error
    found = []
    for records in _walk(path, data)[0]:
        place = 0
        while place < len(records):
            size, kind, via = _HEAD.unpack_from(records, place)
            place += _HEAD.size
            found.append((kind, via, records[place : place + size]))
            place += size
    return found


def _sectors(records: bytes) -> bytes:
    """A batch as it lies in the file."""
    head = _BATCH.pack(len(records), crc32(records))
    content = head + _CHECK.pack(crc32(head)) + records
    tags = (bytes((_FIRST if not start else _NEXT,)) for start in range(0, len(content), _SHARE))
    cut = (content[start : start + _SHARE] for start in range(0, len(content), _SHARE))
    batch = b"".join(tag + share for tag, share in zip(tags, cut, strict=True))
    return batch.ljust(-(-len(batch) // SECTOR) * SECTOR, b"\0")


def _walk(path: Path | str, data: bytes) -> tuple[list[bytes], int]:
    """The records of each whole batch, and where the last of them ends; 0 where not even the opening is whole.

    Raises:
        CheckpointError: there is something else than whole batches and a torn one, or the file is of another format.
    """
    opening = data[:SECTOR]
    if opening == _LOST[: len(opening)] or (len(opening) < SECTOR and opening == _OPENING[: len(opening)]):
        if len(_begun(data, SECTOR)) > 1:  # the opening is synced with the first batch
            raise _damaged(path, 0)
        return [], 0
    if opening != _OPENING:
        raise _unusable(path, data) if data[: len(_MAGIC) + 1] != _OPENING[: len(_MAGIC) + 1] else _damaged(path, 0)
    found: list[bytes] = []
    place = SECTOR
    while place < len(data):
        batch = _batch(path, data, place)
        if batch is None:
            if _begun(data, place + SECTOR):
                raise _damaged(path, place)
            break
        records, place = batch
        found.append(records)
    return found, place


def _begun(data: bytes, start: int) -> list[int]:
    """Where batches begin from `start` on."""
    return [place for place in range(start, len(data), SECTOR) if data[place] == _FIRST]


def _batch(path: Path | str, data: bytes, place: int) -> tuple[bytes, int] | None:
    """The records of the batch at a place, and where it ends; None if some sector of it is not there.

    Raises:
        CheckpointError: it is damaged.
    """
    first = data[place : place + SECTOR]
    if first == _LOST[: len(first)] or len(first) < 1 + _BEFORE:
        return None
    size, check = _BATCH.unpack_from(first, 1)
    if first[0] != _FIRST or _CHECK.unpack_from(first, 1 + _BATCH.size)[0] != crc32(first[1 : 1 + _BATCH.size]):
        raise _damaged(path, place)
    end = place + -(-(_BEFORE + size) // _SHARE) * SECTOR
    if end > len(data):
        return None
    further = [data[at : at + SECTOR] for at in range(place + SECTOR, end, SECTOR)]
    if _LOST in further:
        return None
    content = b"".join(sector[1:] for sector in (first, *further))
    records, padding = content[_BEFORE : _BEFORE + size], content[_BEFORE + size :]
    if any(sector[0] != _NEXT for sector in further) or crc32(records) != check or any(padding):
        raise _damaged(path, place)
    return records, end


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
