"""A thread beside the message loop for what takes long, so that messages and deadlines do not wait for it."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_PATIENCE_S = 0.5
"""How long an end waits for the work under way; a gradient may take minutes, and nobody wants it any more."""


@dataclass(frozen=True, slots=True)
class _Job:
    """Work, and who is told of its outcome."""

    work: Callable[[], Any]
    done: Callable[[Any], None]
    spare: bool


class Computing:
    """One thread that does one piece of work after the other, in the order in which it was asked for; spare work when
    there is no other.

    Whoever runs the loop waits for `descriptor` and calls `collect`: outcomes are delivered there, and errors raised.
    The thread computes with the settings of the thread that made it: torch keeps the number of threads and the gradient
    mode for each, and a new thread has its maker's floating-point environment. So the bits are the same.
    """

    def __init__(self) -> None:
        self.descriptor, self._wake = os.pipe()
        """Readable as soon as something is to be collected."""
        for end in (self.descriptor, self._wake):
            os.set_blocking(end, False)
        self._changed = threading.Condition()
        self._wanted: deque[_Job] = deque()
        self._spare: deque[_Job] = deque()
        self.spare = 0
        """Pieces of spare work that have been asked for and not been collected."""
        self._outcomes: deque[tuple[_Job, Any, BaseException | None]] = deque()
        self._ending = False
        self._threads, self._grad = torch.get_num_threads(), torch.is_grad_enabled()
        self._thread = threading.Thread(target=self._work, name="computing", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[], T], done: Callable[[T], None], spare: bool = False) -> None:
        """Have something computed.

        Args:
            work: called in the thread; it must not touch what the loop changes.
            done: called with its result by `collect`.
            spare: nobody waits for it. It is not interrupted, so what takes long comes in pieces.
        """
        self.spare += spare
        with self._changed:
            (self._spare if spare else self._wanted).append(_Job(work, done, spare))
            self._changed.notify()

    def collect(self) -> None:
        """Deliver what is done, in order.

        Raises:
            BaseException: what the work raised.
        """
        if not self._outcomes:
            return
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 1 << 12)
        while self._outcomes:
            job, result, error = self._outcomes.popleft()
            self.spare -= job.spare
            if error is not None:
                raise error
            job.done(result)

    def close(self) -> None:
        """Do nothing more. What is under way has a moment to end; else the thread is left to the process's end."""
        with self._changed:
            self._ending = True
            self._changed.notify()
        self._thread.join(_PATIENCE_S)
        if not self._thread.is_alive():  # otherwise it still writes there
            os.close(self.descriptor)
            os.close(self._wake)

    def _work(self) -> None:
        torch.set_num_threads(self._threads)
        torch.set_grad_enabled(self._grad)
        while (job := self._next()) is not None:
            result, error = None, None
            try:
                result = job.work()
            except BaseException as raised:  # the loop's, wherever it came up
                error = raised
            self._outcomes.append((job, result, error))
            with contextlib.suppress(BlockingIOError):  # full: then it is readable
                os.write(self._wake, b"!")

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._wanted and not self._spare and not self._ending:
                self._changed.wait()
            if self._ending:
                return None
            return (self._wanted or self._spare).popleft()


def one_at_a_time(compute: Callable[..., T]) -> Callable[..., T]:
    """A function that two threads may call, made from one that only one may be in: an attacker computes others'
    gradients on its loop while its own is under way. A batch's transform may call it again."""
    lock = threading.RLock()

    def locked(*arguments: Any) -> T:
        with lock:
            return compute(*arguments)

    return locked


def under_way() -> bool:
    """True if some work of this process has outlasted its `close`: the process must not wait for it."""
    return any(thread.name == "computing" for thread in threading.enumerate())
