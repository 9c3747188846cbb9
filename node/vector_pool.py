"""Memory of large vectors, kept for the next one of its size.

The allocator would place each anew: a first touch of 40 MB costs 20 ms of page faults, several times what is done with
it.
"""

from __future__ import annotations

import mmap
import weakref

import numpy as np
import torch
from torch import Tensor

_SMALLEST = 1 << 16
"""Entries below which the allocator does well by itself."""

_ITEM_BYTES = 4
_TURN = 256
"""Vectors asked for, after which a size that none of them had is let go."""


class Pool:
    """Hands out uninitialised float32 vectors; the memory of one returns when the last tensor on it is gone."""

    def __init__(self) -> None:
        self._free: dict[int, list[mmap.mmap]] = {}
        self._asked: set[int] = set()
        self._count = 0

    def empty(self, entries: int) -> Tensor:
        """A float32 vector `[entries]` with whatever was in its memory before."""
        if entries < _SMALLEST:
            return torch.empty(entries)
        self._turn(entries)
        kept = self._free.setdefault(entries, [])
        memory = kept.pop() if kept else self._fresh(entries)
        array = np.frombuffer(memory, np.float32, entries)
        # The tensor holds the array; whoever holds a view of the tensor holds it too.
        weakref.finalize(array, kept.append, memory).atexit = False
        return torch.from_numpy(array)

    def free(self, entries: int) -> int:
        """How many vectors of a size wait to be used again."""
        return len(self._free.get(entries, ()))

    def _turn(self, entries: int) -> None:
        # Parts change their size when a peer is removed: what waits in another size may never be asked for again.
        self._asked.add(entries)
        self._count += 1
        if self._count % _TURN == 0:
            for size in self._free.keys() - self._asked:
                self._free[size].clear()
            self._asked.clear()

    @staticmethod
    def _fresh(entries: int) -> mmap.mmap:
        # Shared memory, mmap's default here, has huge pages only where the system allows them to all.
        memory = mmap.mmap(-1, _ITEM_BYTES * entries, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        return memory


POOL = Pool()
"""This process's."""
