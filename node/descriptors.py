"""The file descriptors of this process: as many as the system grants, and a reserve that no connection can take up.

libzmq accepts whoever knocks, and a process without a free descriptor cannot even open its own ledger. So the soft
limit, which is all that libzmq can use, stays a little below what the process may have; where we open something
ourselves, it is lifted for that moment.
"""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from threading import Lock
from types import TracebackType

MOST = 1 << 16
"""More descriptors than these are of no use to a worker, and every one is memory."""
RESERVE = 64

_OPEN = "/proc/self/fd"


def raise_limit() -> int:
    """Let this process have as many descriptors as the system allows, `MOST` at most and all but the reserve.

    Returns:
        The new soft limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = max(1, min(max(soft, MOST), hard - RESERVE)) if hard != resource.RLIM_INFINITY else max(soft, MOST)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return soft


def limit() -> int:
    """How many descriptors connections may leave us with, the reserve not counted."""
    return reserve.soft


def in_use() -> list[int]:
    """The descriptors that are open; where even looking them up takes one too many, all that there could be."""
    with suppress(OSError):
        return [*map(int, os.listdir(_OPEN))]  # noqa: PTH208 (half the cost of Path.iterdir)
    with suppress(OSError), reserve:
        return [*map(int, os.listdir(_OPEN))]  # noqa: PTH208
    return list(range(min(limit(), MOST)))


class _Reserve:
    """A context in which the soft limit is lifted by the reserve, if the hard one allows; threads may share it."""

    def __init__(self) -> None:
        self._lock, self._users, self._soft = Lock(), 0, 0

    @property
    def soft(self) -> int:
        """The soft limit while nobody uses the reserve."""
        with self._lock:
            return self._soft if self._users else resource.getrlimit(resource.RLIMIT_NOFILE)[0]

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
                most = self._soft + RESERVE if hard == resource.RLIM_INFINITY else min(self._soft + RESERVE, hard)
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            self._users += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (self._soft, hard))


reserve = _Reserve()
"""`with reserve:` around what this process opens itself while connections may have taken every other descriptor."""
