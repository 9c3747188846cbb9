"""How often this node has moved: a number in its directory, greater after each start at another address."""

from __future__ import annotations

from pathlib import Path

import msgspec

from btard.node.config import Endpoint
from btard.node.errors import BackendError, CheckpointError
from btard.node.storage.disk import Disk

FILE = "address.json"


class OwnAddress(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file's content: where this node was reached last, and the number of that address."""

    counter: int
    endpoint: Endpoint


def counter(directory: Path, endpoint: Endpoint, disk: Disk) -> int:
    """The number of our address: 0 at the first start, one more than before wherever we have moved.

    On return the disk has it: a number must not be signed for two addresses.

    Args:
        directory: of this node.
        endpoint: where the others are to reach us.
        disk: that the directory is on.

    Raises:
        CheckpointError: the file is damaged.
        BackendError: the file cannot be read or written.
    """
    path = directory / FILE
    try:
        before = msgspec.json.decode(path.read_bytes(), type=OwnAddress) if path.exists() else None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        advice = "restore it from a copy"
        raise CheckpointError(f"{path} does not say how often this peer has moved ({error}); {advice}") from error
    except OSError as error:
        raise BackendError(f"cannot read {path}: {error.strerror}; check who owns it") from error
    if before is not None and before.endpoint == endpoint:
        return before.counter
    now = OwnAddress(0 if before is None else before.counter + 1, endpoint)
    temporary = f"{path}.tmp"
    try:
        file = disk.open(temporary)
        try:
            disk.truncate(file, 0)
            disk.write(file, msgspec.json.encode(now))
            disk.sync(file)
        finally:
            disk.close(file)
        disk.replace(temporary, str(path))
        disk.sync_directory(directory)
    except OSError as error:
        raise BackendError(f"cannot write {path}: {error.strerror}; free the disk") from error
    return now.counter
