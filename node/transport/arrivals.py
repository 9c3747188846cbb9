"""What the transport hands to whoever polls it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from btard.node.protocol.api import BulkKey

AcceptBulk: TypeAlias = Callable[[int, BulkKey, int], bool]


@dataclass(frozen=True, slots=True)
class ControlArrival:
    """A control message from the peer that proved the key of `via`."""

    via: int
    data: bytes


@dataclass(frozen=True, slots=True)
class BulkArrival:
    """A tensor (float32 `[P]`, not to be written into) that bore the token of `via`."""

    via: int
    key: BulkKey
    tensor: Tensor


Arrival: TypeAlias = ControlArrival | BulkArrival


class RefusedError(Exception):
    """A message that has no effect but on the counter of its reason; never leaves the transport.

    Args:
        reason: what is counted.
        via: whom it came from.
        problem: a line for people, where a mistake may be behind it.
    """

    def __init__(self, reason: str, via: int | None = None, problem: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.via, self.problem = reason, via, problem


def accept_any(via: int, key: BulkKey, size_bytes: int) -> bool:
    """Keeps every tensor within the size limit; for tools and tests."""
    return True
