"""The few calls by which a node's memory reaches the disk: the seam at which tests lose power, fill the disk and flip
bits."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from pathlib import Path

from btard.node.transport import descriptors

_PIECES = min(os.sysconf("SC_IOV_MAX"), 1024)
SUFFIX = ".ledger"
_LEAST, _MOST = 8, 32
"""Steps in a file of the ledger."""
_MODELS, _BUDGET_BYTES = 16, 256 << 20
"""Within these bounds a file ends when it is as large as so many models, or as this."""
_sync = os.fsync if sys.platform == "darwin" else os.fdatasync
_LARGE_BYTES, _PAGE_BYTES = 1 << 20, os.sysconf("SC_PAGESIZE")


class Disk:
    """The operating system's files, and the count of what waiting for them has cost.

    Args:
        waits: False: `sync` and `sync_directory` do nothing, and a loss of power may take what was written.
    """

    def __init__(self, waits: bool = True) -> None:
        self.waits = waits
        self.syncs, self.sync_s = 0, 0.0
        """How often, and for how long altogether, it has waited."""
        self.writes = 0
        """How often it has been given something."""
        self._cached_bytes = 0
        """What it has been given since the kernel was last told to forget it."""

    def open(self, path: str, mode: int = 0o600) -> int:
        """Open a file for reading and writing, made if it is not there; as it is otherwise."""
        return descriptors.spared(lambda: os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode))

    def write(self, file: int, *pieces: bytes | memoryview) -> None:
        """Write all of them one behind the other where the file stands, in one call where the system takes them so."""
        left = [piece for piece in pieces if len(piece)]
        while left:
            written = os.writev(file, left[:_PIECES])
            self.writes += 1
            self._cached_bytes += written
            while left and written >= len(left[0]):
                written -= len(left.pop(0))
            if written:
                left[0] = memoryview(left[0])[written:]

    def truncate(self, file: int, size: int) -> None:
        """Cut a file off, and stand there."""
        os.ftruncate(file, size)
        os.lseek(file, size, os.SEEK_SET)

    def sync(self, file: int) -> None:
        """On return the disk has the file's content and its length, and the kernel's cache none of it, if it is large:
        it is read again only after a crash, and pages that are given back cost the next step less than fresh ones."""
        if self.waits:
            began = time.perf_counter()
            _sync(file)
            self._count(began)
            if self._cached_bytes >= _LARGE_BYTES and hasattr(os, "posix_fadvise"):
                # Whole pages alone: the next batch begins in the last one, which would have to be read again.
                size = os.lseek(file, 0, os.SEEK_CUR) // _PAGE_BYTES * _PAGE_BYTES
                with contextlib.suppress(OSError):  # advice, which a file system need not take
                    os.posix_fadvise(file, 0, size, os.POSIX_FADV_DONTNEED)
                self._cached_bytes = 0

    def replace(self, old: str, new: str) -> None:
        """Give a file another name, over whatever has it; durable after `sync_directory`."""
        os.replace(old, new)

    def remove(self, path: str) -> None:
        """Remove a name; where that fails, it takes room and does no harm."""
        with contextlib.suppress(OSError):
            os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        """On return the disk has the directory's names: a new file's content is lost without its name."""
        if not self.waits:
            return
        began = time.perf_counter()
        opened = descriptors.spared(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        try:
            os.fsync(opened)
        finally:
            os.close(opened)
        self._count(began)

    def close(self, file: int) -> None:
        """Close a file; that alone makes nothing durable."""
        os.close(file)

    def _count(self, began: float) -> None:
        self.syncs += 1
        self.sync_s += time.perf_counter() - began


def steps_of_a_file(model: int, step: int) -> int:
    """After how many steps a file of the ledger ends: once the model at its beginning is little beside the rest, but
    before it takes too much room.

    Args:
        model: bytes of parameters and optimiser state.
        step: bytes that a step writes.
    """
    return min(_MOST, max(_LEAST, min(_BUDGET_BYTES, _MODELS * model) // max(step, 1)))
