"""Waiting for what workers write: the kernel says when a journal has grown, so nothing is asked again and again."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from time import monotonic

from tests.workers import WATCHDOG_S, Worker

_IN_MODIFY, _IN_CREATE = 0x2, 0x100
_EVENTS_BYTES = 1 << 16


@contextmanager
def changes(folders: Iterable[str]) -> Iterator[int]:
    """A descriptor that can be read once a file directly in one of the folders has changed (inotify)."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_CLOEXEC)
    assert descriptor >= 0, os.strerror(ctypes.get_errno())
    try:
        for folder in folders:
            watched = libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_MODIFY | _IN_CREATE)
            assert watched >= 0, f"{folder}: {os.strerror(ctypes.get_errno())}"
        yield descriptor
    finally:
        os.close(descriptor)


def until(started: Sequence[Worker], done: Callable[[], bool]) -> None:
    """Wait until `done`, which reads journals, says so; fails if a worker ends before, or the watchdog barks."""
    end = monotonic() + WATCHDOG_S
    with changes(each.config.directory for each in started) as changed:  # before the first look: nothing is missed
        while not done():
            assert monotonic() < end, [each.log for each in started]
            assert all(each.process.exitcode is None for each in started), [each.log for each in started]
            if changed in wait([changed, *(each.process.sentinel for each in started)], end - monotonic()):
                os.read(changed, _EVENTS_BYTES)
