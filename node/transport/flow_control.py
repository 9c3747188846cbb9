"""Credits: how much each peer may send us, so that a flood costs its sender its own place and nobody else's.

Honest peers wait for each other: one can be two phases ahead of us at most, so what it may send follows from how far we
have come. Each peer has two purses per channel, one for messages and one for bytes. They start full, and fill up again
with every phase we enter and slowly with time (for disputes, whose rounds are timed). What is above is dropped unread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from btard.node.protocol.wire.messages import control_bytes, plain_bytes, view_bytes


@dataclass(frozen=True, slots=True)
class Allowance:
    """One peer's limits on one channel, in messages and bytes.

    Args:
        burst: most at once; purses start with it and never hold more.
        per_phase: added for each phase that we enter.
        per_second: added with time, once the run has begun.
    """

    burst: tuple[float, float]
    per_phase: tuple[float, float]
    per_second: tuple[float, float]

    @staticmethod
    def control(peers: int, delivery_bound_s: float) -> Allowance:
        """Of control messages.

        A dispute's worth at once: every view of every peer relayed (two of each), triggers, OUTCOMEs, certificates and
        answers to SUSPECTs; the same again every two rounds of a dispute.
        """
        messages = peers * peers + 32 * peers + 256
        size = 2 * (peers // 2 + 1) * control_bytes(peers) + peers * view_bytes(peers) // 4 + 8 * control_bytes(peers)
        period_s = 4.0 * delivery_bound_s
        ordinary = 4 * peers + 16
        return Allowance(
            burst=(messages, size),
            per_phase=(ordinary, ordinary * plain_bytes(peers)),
            per_second=(messages / period_s, size / period_s),
        )

    @staticmethod
    def bulk(peers: int, largest: int, minimum_rate: float) -> Allowance:
        """Of tensors: in one phase a part, an aggregate, publications of all parts and the answers to our requests."""
        vector = 4.0 * largest
        messages = 4.0 * peers + 16
        return Allowance(
            burst=(4 * messages, 8 * vector + 65536),
            per_phase=(messages, 4 * vector + 4096),
            per_second=(messages, minimum_rate),
        )


@dataclass(frozen=True, slots=True)
class Credits:
    """The allowances of both channels."""

    control: Allowance
    bulk: Allowance

    @staticmethod
    def for_run(peers: int, largest: int, delivery_bound_s: float, minimum_rate: float) -> Credits:
        """Credits that an honest peer does not use up."""
        return Credits(Allowance.control(peers, delivery_bound_s), Allowance.bulk(peers, largest, minimum_rate))


class FlowControl:
    """What each peer has left on one channel.

    Args:
        allowance: of every peer; None: nothing is limited (tools, tests).
        peers: their ids.
        clock: seconds, monotonic.
    """

    def __init__(
        self, allowance: Allowance | None, peers: Iterable[int], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._allowance, self._clock = allowance, clock
        burst = allowance.burst if allowance is not None else (0.0, 0.0)
        self._left = dict.fromkeys(peers, burst)
        self._filled_s: float | None = None

    def add(self, peer: int) -> None:
        """A newcomer, with full purses."""
        self._left[peer] = self._allowance.burst if self._allowance is not None else (0.0, 0.0)

    def phase(self) -> None:
        """We entered a phase; the first one also starts the clock: before the run there is nothing to send twice."""
        if self._allowance is None:
            return
        if self._filled_s is None:
            self._filled_s = self._clock()
        self._add(self._allowance.per_phase, 1.0)

    def spend(self, peer: int, size_bytes: int) -> bool:
        """Take one message of a peer out of its purses; false, and nothing taken, if it does not fit in."""
        if self._allowance is None:
            return True
        messages, size = self._left[peer]
        if messages < 1.0 or size < size_bytes:
            self._pass_time()
            messages, size = self._left[peer]
        if messages < 1.0 or size < size_bytes:
            return False
        self._left[peer] = (messages - 1.0, size - size_bytes)
        return True

    def _pass_time(self) -> None:
        assert self._allowance is not None
        if self._filled_s is not None:
            now = self._clock()
            self._add(self._allowance.per_second, now - self._filled_s)
            self._filled_s = now

    def _add(self, gain: tuple[float, float], times: float) -> None:
        assert self._allowance is not None
        most = self._allowance.burst
        self._left = {
            peer: (min(most[0], messages + times * gain[0]), min(most[1], size + times * gain[1]))
            for peer, (messages, size) in self._left.items()
        }
