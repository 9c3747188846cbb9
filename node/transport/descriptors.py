"""The file descriptors of this process: as many as the system grants, and a reserve that no connection can take up.

libzmq accepts whoever knocks, and a process without a free descriptor cannot even open its own ledger. So the soft
limit, which is all that libzmq can use, stays a little below what the process may have; where we find none free for
something of our own, it is lifted for that moment. libzmq, which never stops trying, takes up some of the reserve in
that moment too: so the limit is not lifted without need, and where all is gone we wait until the guard has shut the
strangers out.
"""

from __future__ import annotations

import errno
import os
import resource
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from threading import Lock
from types import TracebackType
from typing import TypeVar

T = TypeVar("T")

MOST = 1 << 16
"""More descriptors than these are of no use to a worker, and every one is memory."""
RESERVE = 64
PATIENCE_S = 5.0
"""How long to wait for a descriptor of our own: the guard looks ten times a second."""
_PAUSE_S = 0.005

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
"""`with reserve:` around what this process opens itself while connections may have taken every other descriptor; see
`spared`."""


def spared(opened: Callable[[], T]) -> T:
    """What `opened` returns, which opens one descriptor that this process cannot do without.

    Raises:
        OSError: no descriptor is left, not even of the reserve and after a wait; or whatever else `opened` raises.
    """
    lifted: AbstractContextManager[object] = nullcontext()
    end_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            with lifted:
                return opened()
        except OSError as error:
            if error.errno != errno.EMFILE or time.monotonic() > end_s:
                raise
        if lifted is reserve:
            time.sleep(_PAUSE_S)
        lifted = reserve
