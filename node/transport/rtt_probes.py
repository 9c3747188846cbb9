"""How long a message to a peer and its answer take, measured by probes on the control channel."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

_KEPT = 16


class RttProbes:
    """The last answers of each peer.

    A peer that computes a gradient answers when it is done, so the shortest of several answers tells most of the way
    and least of the peer.

    Args:
        clock: nanoseconds, monotonic.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._asked: dict[int, int] = {}
        self._took_s: dict[int, deque[float]] = {}

    def ask(self, peer: int) -> int:
        """The stamp of a new question to a peer; an older one without an answer is forgotten."""
        stamp = self._asked[peer] = self._clock()
        return stamp

    def answered(self, peer: int, stamp: int) -> bool:
        """Take an answer; false if this is not what we asked the peer last."""
        if self._asked.get(peer) != stamp:
            return False
        del self._asked[peer]
        self._took_s.setdefault(peer, deque(maxlen=_KEPT)).append((self._clock() - stamp) * 1e-9)
        return True

    def shortest_s(self, peer: int) -> float | None:
        """The shortest of the last answers, None before the first."""
        return min(self._took_s.get(peer, ()), default=None)

    def all_shortest_s(self) -> dict[int, float]:
        """`shortest_s` of every peer that has answered."""
        return {peer: min(took) for peer, took in dict(self._took_s).items()}
