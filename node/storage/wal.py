"""The ledger: what this node signed, heard and saved, in the order in which it happened; here, one file of it.

What is appended waits in memory until something is to leave the process that rests on it; then all of it is written at
once, as one *batch*, and synced. So a node that is started again, after a kill or a loss of power, has heard and said
all that anything it ever sent rests on, and says nothing else in a slot in which it has spoken.

A batch is its records, in sectors that each begin with a byte that is not 0, and behind them what goes with the records
as it lies in memory: vectors, which are not copied. A sector of records that the disk never got reads as zeros, or lies
behind the file's end. Each batch says how far the file had been synced when it was written: behind that, batches may
lack sectors, nothing that rested on them can have left, and the first that does ends the file. Any other difference is
damage: what this node has signed may be in it. What goes with a record has a digest of its own (`Attachment`): without
it the record stands, and only what it would have saved is lost. A batch's head repeats a number that is drawn for each
file and never leaves it, so that vectors, which others have a part in, cannot pass for one.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

from btard.node.errors import BackendError, CheckpointError
from btard.node.storage.disk import Disk
from btard.node.transport import descriptors

FORMAT = 4
"""Ledgers of format 1 had no checksums, those of format 2 no batches, those of format 3 neither vectors nor states."""
SECTOR = 512
"""Bytes that a disk writes as a whole or not at all."""
_MAGIC = b"BTARD ledger " + bytes((FORMAT,))
_OPENING, _CHECK = struct.Struct("<14s8s"), struct.Struct("<I")
"""Of a file: the magic and its number; CRC-32 of what stands before it."""
_BATCH = struct.Struct("<8sIQQI")
"""The file's number, lengths of records and of what goes with them, how far the file is synced, CRC-32 of records."""
_BEFORE = _BATCH.size + _CHECK.size
_FIRST, _NEXT = 0xB5, 0xC6
"""What the first sector of a batch begins with, and each further one."""
_SHARE = SECTOR - 1
_HEAD = struct.Struct("<IBIQ")
"""Length of a record's content, its kind, the neighbour that it came from, length of what goes with it."""
_CHUNK_BYTES = 1 << 20

SIGNED, HEARD, ATTEMPT, TENSORS = range(4)


@dataclass(frozen=True, slots=True)
class Attachment:
    """What goes with a record: a place in a file; whether it is whole is for its reader to say."""

    path: Path
    start: int
    size: int

    def read(self, start: int, size: int) -> bytes:
        """Some of its bytes; fewer where the file ends.

        Raises:
            BackendError: it cannot be read.
        """
        try:
            with descriptors.spared(lambda: self.path.open("rb")) as file:
                file.seek(self.start + start)
                return file.read(max(0, min(size, self.size - start)))
        except OSError as error:
            raise _unreadable(self.path, error) from error


@dataclass(frozen=True, slots=True)
class Record:
    """One record.

    Args:
        kind: SIGNED, HEARD, ATTEMPT or TENSORS.
        via: the neighbour that it came from; what is our own has our own id.
        content: small, and whole.
        attached: what goes with it.
    """

    kind: int
    via: int
    content: bytes
    attached: Attachment


@dataclass(slots=True)
class Contents:
    """What is in a file.

    Args:
        records: of whole batches, in order.
        damage: where something is missing between them: before how many of them, and the error.
        number: that its batches bear; empty: the file has not even been begun.
        end: behind the last whole batch.
    """

    records: list[Record] = field(default_factory=list)
    damage: list[tuple[int, CheckpointError]] = field(default_factory=list)
    number: bytes = b""
    end: int = 0


class WriteAheadLog:
    """Appends records to one file.

    Args:
        path: the file; appended to if it exists, after its last whole batch.
        disk: that it is on; a new file's name is durable once its directory has been synced.

    Raises:
        BackendError: it cannot be opened.
        CheckpointError: what is in it last is damaged, or of another format.
    """

    def __init__(self, path: Path, disk: Disk | None = None) -> None:
        self._path, self._disk, self._file = path, disk or Disk(), -1
        self._waiting: list[bytes] = []
        self._attached: list[bytes | memoryview] = []
        there = contents(path)
        for place, error in there.damage:
            if place == len(there.records):
                raise error
        self._number, self._end = there.number, there.end
        try:
            self._file = self._disk.open(str(path))
            if not self._number:
                self._number, self._end = os.urandom(8), SECTOR
                opening = _OPENING.pack(_MAGIC, self._number)
                self._disk.truncate(self._file, 0)
                self._disk.write(self._file, (opening + _CHECK.pack(crc32(opening))).ljust(SECTOR, b"\0"))
                self._disk.sync(self._file)
            elif os.fstat(self._file).st_size != self._end:
                # Synced at once: sectors of a torn batch must not show through the one that is written over it.
                self._disk.truncate(self._file, self._end)
                self._disk.sync(self._file)
            os.lseek(self._file, self._end, os.SEEK_SET)
        except OSError as error:
            self.close()
            raise self._failure(error) from error
        self._synced = self._end

    @property
    def size(self) -> int:
        """Bytes that have been written."""
        return self._end

    def append(self, kind: int, via: int, content: bytes, attached: Sequence[bytes | memoryview] = ()) -> None:
        """Add one record, in memory; `write` or `sync` puts it into the file.

        Args:
            kind, via, content: of the record.
            attached: what goes with it; not copied, so it must stay as it is until then.
        """
        size = sum(map(len, attached))
        self._waiting.append(_HEAD.pack(len(content), kind, via, size) + content)
        self._attached += attached

    def write(self) -> None:
        """Give what waits to the kernel: a killed process has not forgotten it, after a loss of power it may be gone.

        Raises:
            BackendError: the disk is full, or fails.
        """
        if not self._waiting:
            return
        records, attached = b"".join(self._waiting), self._attached
        self._waiting, self._attached = [], []
        size = sum(map(len, attached))
        head = _BATCH.pack(self._number, len(records), size, self._synced, crc32(records))
        batch = _sectors(head + _CHECK.pack(crc32(head)) + records)
        try:
            self._disk.write(self._file, batch, *attached, bytes(-size % SECTOR))
        except OSError as error:
            raise self._failure(error) from error
        self._end += len(batch) + size + -size % SECTOR

    def sync(self) -> None:
        """On return the disk has all records; does nothing if it has them.

        Raises:
            BackendError: the disk is full, or fails.
        """
        self.write()
        if self._synced < self._end:
            try:
                self._disk.sync(self._file)
            except OSError as error:
                raise self._failure(error) from error
            self._synced = self._end

    def close(self) -> None:
        """Close the file, without what waits; a second call does nothing."""
        if self._file >= 0:
            self._disk.close(self._file)
            self._file = -1

    def _failure(self, error: OSError) -> BackendError:
        return BackendError(f"cannot write the ledger {self._path}: {error.strerror}; free the disk and resume")


def contents(path: Path) -> Contents:
    """All records of whole batches; what torn ones held had led to nothing that left. No file: none.

    Raises:
        BackendError: it cannot be read.
        CheckpointError: it is damaged at its beginning, or of another format.
    """
    found = Contents()
    try:
        with descriptors.spared(lambda: path.open("rb")) as file:
            found.number = _opened(path, file)
            if found.number:
                _walk(path, file, found)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise _unreadable(path, error) from error
    return found


def _sectors(content: bytes) -> bytes:
    """A batch's head and records as they lie in the file."""
    shares = [content[start : start + _SHARE] for start in range(0, len(content), _SHARE)]
    batch = bytes((_FIRST,)) + bytes((_NEXT,)).join(shares)
    return batch.ljust(-(-len(batch) // SECTOR) * SECTOR, b"\0")


def _opened(path: Path, file: BinaryIO) -> bytes:
    """The number of a file; empty where the disk never got its first sector, which is synced before all others."""
    opening = file.read(SECTOR)
    size = os.fstat(file.fileno()).st_size
    begun = opening[: len(_MAGIC)]
    if (begun == _MAGIC[: len(begun)] and len(opening) < SECTOR) or (not any(opening) and size <= SECTOR):
        return b""
    head = opening[: _OPENING.size]
    if begun == _MAGIC:
        if opening[_OPENING.size :] != _CHECK.pack(crc32(head)).ljust(SECTOR - _OPENING.size, b"\0"):
            raise _damaged(path, 0)
        number: bytes = _OPENING.unpack(head)[1]
        return number
    if not any(opening):
        raise _damaged(path, 0)
    raise _unusable(path, opening)


def _walk(path: Path, file: BinaryIO, found: Contents) -> None:
    """All batches behind the opening."""
    size = os.fstat(file.fileno()).st_size
    found.end = place = SECTOR
    while place < size:
        try:
            batch = _batch(path, file, found.number, place)
        except CheckpointError as error:
            found.damage.append((len(found.records), error))
            place = next((later for later, _ in _heads(file, found.number, place + SECTOR)), size)
            continue
        if batch is None:
            synced = [later for later, known in _heads(file, found.number, place + SECTOR) if known > place]
            if not synced:
                return
            found.damage.append((len(found.records), _damaged(path, place)))
            place = synced[0]
            continue
        records, start, place = batch
        found.records += _records(path, records, start)
        found.end = place


def _records(path: Path, records: bytes, start: int) -> Iterator[Record]:
    place = 0
    while place < len(records):
        size, kind, via, attached = _HEAD.unpack_from(records, place)
        place += _HEAD.size
        yield Record(kind, via, records[place : place + size], Attachment(path, start, attached))
        place += size
        start += attached


def _heads(file: BinaryIO, number: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Where batches begin from `start` on, and how far the file was synced before each."""
    file.seek(start)
    while chunk := file.read(_CHUNK_BYTES):
        for place in range(0, len(chunk), SECTOR):
            if chunk[place] == _FIRST and chunk[place + 1 : place + 1 + len(number)] == number:
                head = chunk[place + 1 : place + 1 + _BEFORE]
                if len(head) == _BEFORE and _CHECK.unpack_from(head, _BATCH.size)[0] == crc32(head[: _BATCH.size]):
                    yield start + place, _BATCH.unpack_from(head)[3]
        start += len(chunk)


def _batch(path: Path, file: BinaryIO, number: bytes, place: int) -> tuple[bytes, int, int] | None:
    """The records of the batch at a place, where what goes with them begins, and where it ends; None if some sector of
    its records is not there.

    Raises:
        CheckpointError: it is damaged.
    """
    file.seek(place)
    first = file.read(SECTOR)
    if not any(first) or len(first) < 1 + _BEFORE:
        return None
    head = first[1 : 1 + _BATCH.size]
    if first[0] != _FIRST or _CHECK.unpack_from(first, 1 + _BATCH.size)[0] != crc32(head):
        raise _damaged(path, place)
    found, size, attached, _, check = _BATCH.unpack(head)
    sectors = -(-(_BEFORE + size) // _SHARE)
    data = first + file.read((sectors - 1) * SECTOR)
    cut = [data[start : start + SECTOR] for start in range(0, len(data), SECTOR)]
    if len(data) < sectors * SECTOR or not all(map(any, cut)):
        return None
    content = b"".join(sector[1:] for sector in cut)
    records, padding = content[_BEFORE : _BEFORE + size], content[_BEFORE + size :]
    whole = crc32(records) == check and not any(padding) and all(sector[0] == _NEXT for sector in cut[1:])
    if found != number or not whole:
        raise _damaged(path, place)
    start = place + len(data)
    return records, start, start + attached + -attached % SECTOR


def _unreadable(path: Path, error: OSError) -> BackendError:
    return BackendError(f"cannot read the ledger {path}: {error.strerror}; check the run directory")


def _damaged(path: Path, place: int) -> CheckpointError:
    return CheckpointError(
        f"{path} is damaged at byte {place}: what this node has signed may be lost, and it could convict itself; "
        "restore the file from a copy, or leave the node off (the others go on without it)"
    )


def _unusable(path: Path, opening: bytes) -> CheckpointError:
    if opening.startswith(_MAGIC[:-1]) and len(opening) >= len(_MAGIC):
        found = opening[len(_MAGIC) - 1]
        return CheckpointError(
            f"{path} is a ledger of format {found}, this program reads {FORMAT}; use the release that wrote it"
        )
    return CheckpointError(
        f"{path} is no ledger of format {FORMAT}: of an earlier release, or damaged at its beginning; use the release "
        "that wrote it, or restore the file from a copy"
    )
