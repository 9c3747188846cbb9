"""How long a peer waits in a phase: for bulk, and for messages before it suspects their senders.

A faulty peer can send its last message of a phase to one honest peer alone, which then enters the next phase before the
others. It notices that they say nothing there, and 2 D after its entry forwards them the messages that ended the phase
before (for an attempt's first phase: the certificate), or as late as it was busy with a gradient meanwhile. Nobody can
enter a phase after that before all honest peers have spoken in this one, so they are never further apart than

    L = 2 D + T_g

and the delivery. Hence, counted from phase entry, with D the delivery bound and T_g that of a gradient:

    W_p = L + 3 D + bulk / minimum rate       (phases that wait for bulk)
    T_p = L + 3 D + W_p + compute_p

Where validators contribute too, COMMIT has T_g more: a validator computes two gradients then, in whatever order, and
owes the second for its REPORT.

so that no honest peer ever suspects, or misses the bulk of, an honest one while synchrony holds.

Nobody who sends just before these deadlines is ever suspected, so a wait has a smaller budget too, and whoever makes
others wait longer gets late edges (node/protocol/attempt/lateness.py). Where gradients do not hold up the loop that
forwards, an honest peer enters a phase at most 2 D and the delivery after us, sends what it owes at once, and says its
message when it has what it is owed itself. So for an honest peer, that nobody keeps waiting, we wait at most

    c_p = 4 D + bulk / minimum rate           for a tensor, from our entry,
    b_p = 4 D + compute_p + c_p               for its message, from our own (c_p: 0 in phases without bulk).

With tight budgets these two, and the 2 D, go by a smaller D and T_g than the deadlines
(node/protocol/attempt/measured_bounds.py).
"""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.protocol.settings import Settings


@dataclass(frozen=True, slots=True)
class Work:
    """What a phase's message may wait for, beside the messages of the phase before.

    Args:
        tensors: vectors of full length that move before it.
        computes: gradients that a peer may be busy with before it says it.
        first: an attempt begins with it; a validator that contributes computes two gradients then.
        beside: those are computed beside the loop: nothing in the phase waits for them.
        rechecks: it needs all that an undo step asks of one peer.
        judged: the gradients that judging needs are computed before it.
        published: the parts that judging needs move before it.
    """

    tensors: int = 0
    computes: int = 0
    first: bool = False
    beside: bool = False
    rechecks: bool = False
    judged: bool = False
    published: bool = False


@dataclass(frozen=True, slots=True)
class Deadline:
    """Seconds from phase entry: until bulk counts as missing (0: the phase waits for none), and until SUSPECT; of a
    budget, see there."""

    bulk_s: float
    message_s: float


def deadline(work: Work, settings: Settings, active: int, tensors: int, recomputed: int) -> Deadline:
    """The waits of a phase.

    Args:
        work: of the phase entered.
        settings: D, T_g and the minimum rate.
        active: size of the roster; everyone may send, or pull from everyone, at once.
        tensors: vectors of full length that move before this phase's message (0: none).
        recomputed: gradients that every peer recomputes for judging; before that, those which an undo step asks of one
            peer for its REPORT: between two of them it listens and speaks.
    """
    judging = recomputed if work.judged else 0
    busy_s = max(1, judging) * settings.gradient_bound_s
    lag_s = busy_s + 5.0 * settings.delivery_bound_s
    bulk_s = lag_s + _transfer_s(settings, active, tensors) if tensors else 0.0
    return Deadline(bulk_s, lag_s + bulk_s + _computes(work, settings, recomputed) * settings.gradient_bound_s)


def budget(work: Work, settings: Settings, active: int, tensors: int, recomputed: int) -> Deadline:
    """How long waits of a phase may take without anybody being called late (its arguments: see `deadline`).

    Returns:
        Seconds from phase entry for bulk (0: the phase waits for none), and from our own message for all others'.
    """
    lag_s = laggards_s(settings) + 2.0 * _budget_delivery_s(settings)
    bulk_s = lag_s + _transfer_s(settings, active, tensors) if tensors else 0.0
    gradient_s = settings.gradient_bound_s if settings.budget_gradient_s is None else settings.budget_gradient_s
    computes = 0 if work.beside else _computes(work, settings, recomputed)
    return Deadline(bulk_s, lag_s + bulk_s + computes * gradient_s)


def _transfer_s(settings: Settings, active: int, tensors: int) -> float:
    """How long everyone's vectors take over one link."""
    return 4.0 * settings.dimension * tensors * active / settings.minimum_rate


def _computes(work: Work, settings: Settings, recomputed: int) -> int:
    """Gradients that a peer may have to compute before it says its message."""
    earlier = recomputed if work.rechecks else min(recomputed, 1)
    computes = recomputed if work.judged else max(work.computes, earlier)
    return computes + (work.first and settings.validators > 0 and settings.validators_contribute)


def fetching_s(settings: Settings, active: int) -> float:
    """How long a peer may take to fetch a state from everyone at once: parameters and optimiser state of it and of the
    one before it, and the aggregates in between, after a question and its answer."""
    optimiser = settings.dimension if settings.optimiser_entries is None else settings.optimiser_entries
    entries = 3 * settings.dimension + 2 * optimiser
    return 2.0 * settings.delivery_bound_s + 4.0 * entries * active / settings.minimum_rate


def laggards_s(settings: Settings) -> float:
    """How long after its entry into a phase a peer tells those who are silent there what ended the phase before."""
    return 2.0 * _budget_delivery_s(settings)


def _budget_delivery_s(settings: Settings) -> float:
    return settings.delivery_bound_s if settings.budget_delivery_s is None else settings.budget_delivery_s


def dispute_round_s(settings: Settings) -> float:
    """Length of one round of a dispute: 2 D, so that views sent in time by any honest peer are in time at all."""
    return 2.0 * settings.delivery_bound_s


def outcome_s(settings: Settings) -> float:
    """How long a peer waits for a dispute that never starts before it halts, and for greetings."""
    return 6.0 * settings.delivery_bound_s + 2.0 * settings.gradient_bound_s


def settled_s(settings: Settings, active: int) -> float:
    """How long after the OUTCOME of a dispute some may need to follow it: they pull aggregates and published parts, all
    at once, and compute what judging needs. A peer without a majority of OUTCOMEs waits as long before it halts."""
    tensors = 1 + active
    return outcome_s(settings) + 4.0 * settings.dimension * tensors * active / settings.minimum_rate
