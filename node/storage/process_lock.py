"""Is a worker still there? It holds a lock on a file in its directory, which the kernel lets go when it dies.

Containers see no other container's processes, but a lock on a shared volume they do see; it needs no clock, holds for
a paused process, and does not outlast a killed one.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from btard.node.errors import BackendError

LOCK, EXIT = "alive", "exit"
_ATTEMPTS, _BETWEEN_S = 50, 0.02
_WORD_BYTES = 8
_LOOK = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How to open what a hostile worker may have put there: through no link, and without waiting for a FIFO's writer."""


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Count as alive from here on; the exit code of an earlier process is forgotten.

    Raises:
        BackendError: the directory cannot be written, or another process works in it.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise BackendError(f"cannot write in {directory}: {error.strerror}; check who owns it") from error
    try:
        _lock(descriptor)
        (directory / EXIT).unlink(missing_ok=True)
        yield
    except BlockingIOError as error:
        raise BackendError(f"another worker runs in {directory}; stop that one first") from error
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Take the lock; whoever asks whether we are alive holds it for an instant."""
    for _ in range(_ATTEMPTS):
        with suppress(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_BETWEEN_S)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def leave_word(directory: Path, exit_code: int) -> None:
    """Note the exit code for whoever watches the directory.

    Raises:
        BackendError: the disk is full.
    """
    try:
        (directory / EXIT).write_text(f"{exit_code}\n")
    except OSError as error:
        raise BackendError(f"cannot write {directory / EXIT}: {error.strerror}; free the disk") from error


def alive(directory: Path) -> bool:
    """True while some process holds the directory."""
    try:
        descriptor = os.open(directory / LOCK, _LOOK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def began(directory: Path) -> bool:
    """True once some process has held the directory."""
    try:
        return stat.S_ISREG((directory / LOCK).lstat().st_mode)
    except OSError:
        return False


def last_word(directory: Path) -> int | None:
    """The exit code that the process left, None if it had no time to."""
    try:
        descriptor = os.open(directory / EXIT, _LOOK)
        try:
            return int(os.read(descriptor, _WORD_BYTES))
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
