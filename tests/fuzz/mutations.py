"""What bytes choose: values, places, and everything that can be made of a body or of a name."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from btard.node.protocol.api import BulkKey, BulkKind


class Source:
    """Choices out of bytes; an exhausted source always chooses the first."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def pick(self, count: int) -> int:
        """A number below `count` (at most 65536)."""
        return int.from_bytes(self.take(1 if count <= 256 else 2), "little") % max(count, 1)

    def take(self, size: int) -> bytes:
        """The next bytes, as many as are left."""
        taken = self._data[self._at : self._at + size]
        self._at += size
        return taken


def flipped(data: bytes, source: Source) -> bytes:
    changed = bytearray(data)
    for _ in range(1 + source.pick(4)):
        changed[source.pick(65536) % len(changed)] = source.pick(256)
    return bytes(changed)


_VALUES: tuple[Any, ...] = (
    0, 1, -1, 3, 4, 2**31, 2**63, -(2**63), 2**64 - 1, None, True, b"", bytes(32), b"x" * 300, "", "void", "gradient",
    [], [[]], 0.0, 1e308, float("nan"), float("inf"), {}, ["missing", [0, 1, 2]], ["void", [[0, "silent", None]]],
)  # fmt: skip


def _value(source: Source) -> Any:
    return deepcopy(_VALUES[source.pick(len(_VALUES))])


def mutate(value: list[Any], source: Source) -> None:
    """Change one place of a decoded body: replace, drop, repeat or descend."""
    if not value:
        value.append(_value(source))
        return
    place = source.pick(len(value))
    match source.pick(5):
        case 0:
            value[place] = _value(source)
        case 1:
            del value[place]
        case 2:
            value[place : place + 1] = [value[place]] * (2 + source.pick(40))
        case _ if isinstance(value[place], list):
            mutate(value[place], source)
        case _ if isinstance(value[place], bytes):
            value[place] = source.take(32).ljust(len(value[place]), b"\0")
        case _:
            value[place] = _value(source)


def key_of(source: Source) -> BulkKey:
    kind = tuple(BulkKind)[source.pick(3)]
    numbers = [source.pick(6) - 1 for _ in range(4)]
    if source.pick(8) == 0:
        numbers[source.pick(4)] = 2**62
    return BulkKey(numbers[0], numbers[1], kind, numbers[2], numbers[3])
