"""Files that are there as a whole or not at all, and errors of the disk in one line."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import msgspec

from btard.node.errors import BackendError

IN_A_RUN = "copy of the directory, one of your own"
"""Where else what a command adds to a run or sweep that is there can go."""


def write_atomically(path: Path, content: bytes, mode: int = 0o644, option: str = "--run-dir") -> None:
    """Write a file through a temporary one beside it; `option` is what a user would choose another place with.

    Raises:
        BackendError: the disk is full, or the directory cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(error, path, option) from error


def as_json(value: object) -> bytes:
    """A value as indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def disk_error(error: OSError, path: Path, option: str = "--run-dir") -> BackendError:
    """An OSError as one line with what to do; `option` names the place."""
    if error.errno == errno.ENOSPC:
        return BackendError(f"the disk is full: cannot write {path}; free some space, or use another {option}")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return BackendError(f"{path} is not writable ({error.strerror}); use another {option}")
    return BackendError(f"cannot write {path}: {error.strerror}; use another {option}")


def last_lines(path: Path, count: int) -> tuple[str, ...]:
    """The last `count` lines of a log, without trailing blanks; empty if there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 65536))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ()
    return tuple(line.rstrip() for line in lines if line.strip())[-count:]
