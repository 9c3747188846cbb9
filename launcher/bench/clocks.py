"""Reading a process's time around one operation that all processes do together."""

from __future__ import annotations

import time
from collections.abc import Callable
from multiprocessing.synchronize import Barrier

import msgspec

PATIENCE_S = 120.0


class Sample(msgspec.Struct, frozen=True):
    """One operation in one process: CPU seconds of all its threads, and when it began and ended (monotonic)."""

    cpu_s: float
    began_s: float
    ended_s: float


class Stopwatch:
    """Times operations between two barriers; waiting at them is not counted, what threads still do meanwhile is."""

    def __init__(self, barrier: Barrier) -> None:
        self._barrier = barrier
        self._cpu_s = self._began_s = 0.0

    def start(self) -> None:
        """All begin together."""
        self._barrier.wait(PATIENCE_S)
        self._cpu_s, self._began_s = time.process_time(), time.monotonic()

    def stop(self) -> Sample:
        """This process is done; returns when all are."""
        ended_s, thread_s = time.monotonic(), time.thread_time()
        self._barrier.wait(PATIENCE_S)
        waiting_s = time.thread_time() - thread_s
        return Sample(time.process_time() - self._cpu_s - waiting_s, self._began_s, ended_s)

    def time(self, operation: Callable[[], None]) -> Sample:
        """Start, run, stop."""
        self.start()
        operation()
        return self.stop()
