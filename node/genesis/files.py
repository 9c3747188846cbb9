"""Files of an identity's directory: small, JSON, there as a whole or not at all."""

from __future__ import annotations

import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from btard.node.errors import BackendError, ConfigError, DataError
from btard.node.storage.records import read_regular


def read(path: Path, limit: int) -> bytes | None:
    """A file's content; None: there is none. A link is not followed.

    Raises:
        ConfigError: it cannot be read, is no regular file, or is larger than `limit` bytes.
    """
    try:
        return read_regular(path.parent, path.name, limit)
    except FileNotFoundError:
        return None
    except DataError as error:
        raise ConfigError(f"{path.parent}/{error}") from error


def write(path: Path, value: object) -> None:
    """Write a value as JSON; a crash leaves the old file or the new one.

    Raises:
        BackendError: the file cannot be written.
    """
    # Others may write to the directory too: nobody can have put a link where this goes.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")
        temporary.replace(path)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink()
        raise BackendError(f"cannot write {path}: {error.strerror}; check who owns its directory") from error
