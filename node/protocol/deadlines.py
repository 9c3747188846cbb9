"""How long a peer waits in a phase: for bulk, and for messages before it suspects their senders.

A faulty peer can send its last message of a phase to one honest peer alone, at the last instant: that peer goes on, the
others lack it. After 2 D in its new phase it passes the finished one's messages on to everyone of whom it has heard
nothing there (node/protocol/peer.py), so honest peers enter a phase at most 3 D apart, whatever the deadlines before
it, or 3 D + c T_g where it is busy with c gradients meanwhile. Hence, counted from phase entry, with D the delivery
bound and T_g the gradient bound:

    lag_p = 5 D + c T_g
    W_p   = lag_p + bulk / minimum rate             (phases that wait for bulk)
    T_p   = lag_p + W_p + c T_g

so that no honest peer ever suspects, or misses the bulk of, an honest one while synchrony holds: the last one enters
3 D + c T_g after the first, waits W_p, computes, and its message travels D.
"""

from __future__ import annotations

from dataclasses import dataclass

from node.protocol.messages import Phase
from node.protocol.settings import Settings

_COMPUTES = {Phase.COMMIT: 1, Phase.AGG: 1, Phase.REPORT: 1}
"""Gradients a peer may be busy with before it says its message; validators still recompute during AGG."""

_JUDGING = (Phase.PUBLISH, Phase.HAVE, Phase.JUDGE, Phase.CLOSE)


@dataclass(frozen=True, slots=True)
class Deadline:
    """Seconds from phase entry: until bulk counts as missing (0: the phase waits for none), and until SUSPECT."""

    bulk_s: float
    message_s: float


PATIENCE = 2.0
"""Deliveries that a peer waits in a phase before it passes on what the phase before held."""


def deadline(phase: Phase, settings: Settings, active: int, tensors: int, recomputed: int) -> Deadline:
    """The waits of a phase.

    Args:
        phase: the phase entered.
        settings: D, T_g and the minimum rate.
        active: size of the roster; everyone may send, or pull from everyone, at once.
        tensors: vectors of full length that move before this phase's message (0: none).
        recomputed: gradients that every peer recomputes for judging.
    """
    computes = recomputed if phase in _JUDGING else _COMPUTES.get(phase, 0)
    busy_s = computes * settings.gradient_bound_s
    lag_s = lag(settings, busy_s)
    bulk_s = lag_s + 4.0 * settings.dimension * tensors * active / settings.minimum_rate if tensors else 0.0
    return Deadline(bulk_s, lag_s + bulk_s + busy_s)


def lag(settings: Settings, busy_s: float = 0.0) -> float:
    """How far apart honest peers enter a phase in which some compute for `busy_s`, and D to and fro to spare."""
    return (PATIENCE + 3.0) * settings.delivery_bound_s + busy_s


def dispute_round_s(settings: Settings) -> float:
    """Length of one round of a dispute: 2 D, so that views sent in time by any honest peer are in time at all."""
    return 2.0 * settings.delivery_bound_s


def outcome_s(settings: Settings) -> float:
    """How long a peer waits for the roster's OUTCOMEs, or for a dispute that never starts, before it halts."""
    return 6.0 * settings.delivery_bound_s + 2.0 * settings.gradient_bound_s
