"""How long a peer waits: a phase's deadlines, budgets and timers, who is late, and the bounds that all of it goes by.

Nothing here reads a clock.

Deadlines. A faulty peer can send its last message of a phase to one honest peer alone, which then enters the next phase
before the others. It notices that they say nothing there, and 2 D after its entry forwards them the messages that ended
the phase before (for an attempt's first phase: the certificate), or as late as it was busy with a gradient meanwhile.
Nobody can enter a phase after that before all honest peers have spoken in this one, so they are never further apart
than

    L = 2 D + T_g

and the delivery. Hence, counted from phase entry, with D the delivery bound and T_g that of a gradient:

    W_p = L + 3 D + bulk / minimum rate       (phases that wait for bulk)
    T_p = L + 3 D + W_p + compute_p

Where validators contribute too, COMMIT has T_g more: a validator computes two gradients then, in whatever order, and
owes the second for its REPORT.

so that no honest peer ever suspects, or misses the bulk of, an honest one while synchrony holds.

Budgets and lateness. Nobody who sends just before these deadlines is ever suspected, and a local timeout is never a
reason to ban, so a wait has a smaller budget too. Where gradients do not hold up the loop that forwards, an honest peer
enters a phase at most 2 D and the delivery after us, sends what it owes at once, and says its message when it has what
it is owed itself. So for an honest peer, that nobody keeps waiting, we wait at most

    c_p = 4 D + bulk / minimum rate           for a tensor, from our entry,
    b_p = 4 D + compute_p + c_p               for its message, from our own (c_p: 0 in phases without bulk).

A peer says in REPORT whom it waited for longer. Laggards are told within 2 D what they lack
(docs/adr/0016-laggards-are-told.md), so lateness goes no further than from a tensor to the message that waits for it:
one who is late with a message because it was itself kept waiting for a tensor says so, and the late edge joins these
two. One of the two is faulty: the wait is a lie, or it is not.

Measured bounds. With tight budgets c_p, b_p and the 2 D go by a smaller D and T_g than the deadlines. What a HELLO says
binds nobody, since a liar says something else to each; so each peer signs its measurements in the REPORT of step 0,
which runs by the stated bounds, and they are part of the state that its CLOSEs cover. Agreed on is the (f + 1)-th
largest: at least one honest peer measured as much or more, so no f liars raise it.

Source: PROTOCOL section 10, rule 5; docs/adr/0043-slowness.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from btard.node.protocol.api import CancelTimer, Output, SetTimer
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.settings import Settings
from btard.node.protocol.wire.messages import Have, Late, Phase, Report, Reveal


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
    lag_s = 2.0 * laggards_s(settings)
    bulk_s = lag_s + _transfer_s(settings, active, tensors) if tensors else 0.0
    gradient_s = settings.gradient_bound_s if settings.budget_gradient_s is None else settings.budget_gradient_s
    computes = 0 if work.beside else _computes(work, settings, recomputed)
    return Deadline(bulk_s, lag_s + bulk_s + computes * gradient_s)


def _transfer_s(settings: Settings, active: int, tensors: int) -> float:
    """How long everyone's vectors take over one link."""
    return float(settings.precision.item_bytes) * settings.dimension * tensors * active / settings.minimum_rate


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


def settled_s(settings: Settings, active: int, recomputed: int = 0) -> float:
    """How long after the OUTCOME of a dispute some may need to follow it: they pull aggregates and published parts, all
    at once, and compute what judging needs, beside what they are at. A peer without a majority of OUTCOMEs, which takes
    no gradient, waits as long as where none is needed before it halts.

    Args:
        settings: the bounds.
        active: size of the roster.
        recomputed: gradients that every peer recomputes for judging; one of them is in the wait for any OUTCOME.
    """
    more_s = max(0, recomputed - 1) * settings.gradient_bound_s
    return outcome_s(settings) + _transfer_s(settings, active, 1 + active) + more_s


def behind_s(settings: Settings, active: int, faults: int, recomputed: int) -> float:
    """How much later than a peer that is let in with an attempt the others may be in it: they pass on what ended the
    one before, dispute that in as many windows and rounds as there can be, and wait for those who need bytes, or the
    gradients recomputed for judging it, after that."""
    disputed_s = (2 * (faults + 1) + 1) * dispute_round_s(settings)
    return disputed_s + fetching_s(settings, active) + settled_s(settings, active, recomputed)


# --- timers ---------------------------------------------------------------------------------------------------


LAGGARDS, BULK, MESSAGES, STALL = "laggards", "bulk", "messages", "stall"
OF_AN_ATTEMPT = (LAGGARDS, BULK, MESSAGES, STALL)
HELLO, UNBEGUN, FORWARD, BEFORE = "hello", "unbegun", "forward", "before"
"""The wait for greetings; nothing has begun here, and may have elsewhere; what ended the attempt before goes to all; a
window in which its dispute can be joined is over."""


class Timers:
    """Sets the timers of a phase; nothing here reads a clock.

    Args:
        settings: the bounds.
        active: size of the roster.
        out: where outputs are appended.
        patience_s: how long others may be in coming to this attempt, beyond what its first deadline allows for.
    """

    def __init__(self, settings: Settings, active: int, out: list[Output], patience_s: float = 0.0) -> None:
        self._settings, self._active, self._out = settings, active, out
        self._work, self._tensors, self._recomputed, self._patience_s = Work(), 0, 0, patience_s
        self.budget = self._longer(budget(self._work, settings, active, 0, 0))
        """What the phase's waits may take before anybody is called late."""

    def enter(self, work: Work, publications: int, recomputed: int) -> None:
        """A phase begins.

        Args:
            work: what its message may wait for.
            publications: parts published for judging, each to every peer.
            recomputed: gradients that every peer recomputes for judging, or at most for its REPORT in an undo step;
                whoever is at one says nothing meanwhile.
        """
        self._work, self._recomputed = work, recomputed
        self._tensors = publications if work.published else work.tensors
        self.budget = self._longer(budget(work, self._settings, self._active, self._tensors, recomputed))
        self.restart()

    def restart(self) -> None:
        """The phase's waits begin now."""
        waits = self._deadline()
        self._out += [CancelTimer(BULK), CancelTimer(STALL)]
        if not self._work.first:
            self._out.append(SetTimer(LAGGARDS, laggards_s(self._settings)))
        if waits.bulk_s > 0:
            self._out.append(SetTimer(BULK, waits.bulk_s))
        self._out.append(SetTimer(MESSAGES, waits.message_s))

    def wait_on(self) -> None:
        """Tensors are waited for half as long again as messages are after them."""
        waits = self._deadline()
        self._out.append(SetTimer(BULK, (waits.message_s - waits.bulk_s) / 2.0))

    def complained(self) -> None:
        """The wait for tensors has taken longer: for messages there is as much as after any other."""
        waits = self._deadline()
        self._out.append(SetTimer(MESSAGES, waits.message_s - waits.bulk_s))

    def stall(self) -> None:
        """We have suspected somebody: unless a message or a dispute follows, there is no quorum."""
        self._out.append(SetTimer(STALL, self._deadline().message_s + outcome_s(self._settings)))

    def _deadline(self) -> Deadline:
        return self._longer(deadline(self._work, self._settings, self._active, self._tensors, self._recomputed))

    def _longer(self, waits: Deadline) -> Deadline:
        """With the time that others may need to come to this attempt, before their first COMMIT."""
        if not self._work.first or self._patience_s == 0.0:
            return waits
        return replace(waits, message_s=waits.message_s + self._patience_s)


# --- lateness -------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Watch:
    """The time, as the driver told it last."""

    now_s: float = 0.0


class Patience:
    """Notes the waits of one attempt that exceed their budgets.

    Args:
        attempt: the attempt; the waits go into it.
        clock: knows the budgets of the phase.
        watch: the time.
    """

    def __init__(self, attempt: Attempt, clock: Timers, watch: Watch) -> None:
        self._attempt, self._clock, self._watch = attempt, clock, watch
        self._since_s = 0.0
        self._last: int | None = None
        self._spoken = False
        self._quorum = len(attempt.roster.active) - attempt.roster.faults

    def enter(self) -> None:
        """A phase begins: its tensors are waited for."""
        self._since_s, self._last, self._spoken = self._watch.now_s, None, False

    def computed(self) -> None:
        """Our own gradient is ready."""
        self._attempt.gradient_s = self._watch.now_s - self._since_s

    def got(self, owner: int) -> None:
        """A tensor of this owner is here."""
        self._last = owner

    def said(self, phase: Phase) -> None:
        """We have said our message: the others' are waited for."""
        budget_s = self._clock.budget.bulk_s
        if budget_s > 0:
            self._note(phase, True, budget_s)
        self.enter()
        self._spoken = True

    def heard(self, sender: int, phase: Phase) -> None:
        """A message of the phase is here. How long n - f of them take, no f peers can stretch."""
        self._last, attempt = sender, self._attempt
        if not self._spoken or phase is Phase.COMMIT:
            return
        if attempt.transcript.count(phase) == self._quorum:
            attempt.delivery_s = max(attempt.delivery_s, self._watch.now_s - self._since_s)

    def complete(self, phase: Phase) -> None:
        """Everyone's message of the phase is here."""
        self._note(phase, False, self._clock.budget.message_s)
        self._last = None

    def _note(self, phase: Phase, bulk: bool, budget_s: float) -> None:
        late = self._watch.now_s - self._since_s > budget_s
        if late and self._last is not None and self._last != self._attempt.me:
            self._attempt.late.append(Late(phase, bulk, self._last))


def waited(past: Attempt, attempt: Attempt) -> tuple[Late, ...]:
    """What our REPORT says of the waits of the committed attempt before.

    Nothing where others had a reason to be late that is dealt with elsewhere: a dispute, an attempt that was void,
    bytes that somebody lacked.
    """
    held = [body.have for body in past.transcript.of(Reveal, Phase.REVEAL).values()]
    held += [body.have for body in past.transcript.of(Have, Phase.HAVE).values()]
    if past.number > 0 or past.disputed or past.shaken or past.complaints() or not all(map(all, held)):
        return ()
    once = {(wait.phase.value, wait.bulk): wait for wait in reversed(past.late) if wait.peer in attempt.roster.active}
    return tuple(once[place] for place in sorted(once))


def late_pairs(attempt: Attempt) -> frozenset[tuple[int, int]]:
    """The pairs that the REPORTs of an attempt give a late edge, lower id first."""
    said = {peer: report.late for peer, report in attempt.transcript.of(Report, Phase.REPORT).items()}
    excuses = {(peer, wait.phase): wait.peer for peer, waits in said.items() for wait in waits if wait.bulk}
    found = set()
    for peer, waits in said.items():
        for wait in waits:
            excuse = None if wait.bulk else excuses.get((wait.peer, wait.phase))
            pair = (peer, wait.peer) if excuse is None else (wait.peer, excuse)
            found.add((min(pair), max(pair)))
    return frozenset(found)


# --- measured bounds ------------------------------------------------------------------------------------------


FLOOR_MS = (250, 1000)
"""D and T_g are never taken to be less: processes that share a machine stop each other for as long."""

MARGIN = 8
"""How many times the measurement."""

TIGHT_FLOOR_MS, TIGHT_MARGINS = (5, 50), (4, 2)
"""The same of tight budgets. Being late now and then costs nothing, so they need no room for the rare stop."""

_MOST_MS = 2**31


def measuring(attempt: Attempt) -> bool:
    """True if the REPORTs of this attempt carry measurements."""
    settings = attempt.settings
    return attempt.step == 0 and (settings.measure_delivery or settings.measure_gradient or settings.tight_budgets)


def measured(attempt: Attempt) -> tuple[int, ...]:
    """What our REPORT says; what we did not measure is as large as is stated."""
    if not measuring(attempt):
        return ()
    settings = attempt.settings
    found = ((attempt.delivery_s, settings.delivery_bound_s), (attempt.gradient_s, settings.gradient_bound_s))
    return tuple(min(_milliseconds(seconds if seconds > 0 else stated_s), _MOST_MS) for seconds, stated_s in found)


def measures_fit(said: tuple[int, ...], attempt: Attempt) -> bool:
    """True if a REPORT carries what it has to."""
    return len(said) == (2 if measuring(attempt) else 0) and all(0 <= value <= _MOST_MS for value in said)


def agreed(attempt: Attempt) -> tuple[int, ...]:
    """The bounds after a committed attempt, in milliseconds: those before, but for step 0.

    D and T_g, and the same for budgets, at most those. Rounded up to a power of two times the floor, so that runs of
    one kind agree on the same; never above what is stated, and exactly that where it is not to be measured.
    """
    if not measuring(attempt):
        return attempt.state.summary.bounds
    settings = attempt.settings
    stated = (settings.delivery_bound_s, settings.gradient_bound_s)
    wanted = (settings.measure_delivery, settings.measure_gradient)
    said = [report.measured for report in attempt.transcript.of(Report, Phase.REPORT).values()]
    found = [sorted(column, reverse=True)[attempt.roster.faults] for column in zip(*said, strict=True)]
    bounds = [_milliseconds(bound_s) for bound_s in stated]
    for place, (value, floor, measure) in enumerate(zip(found, FLOOR_MS, wanted, strict=True)):
        if measure:
            bounds[place] = min(_rounded(MARGIN * value, floor), bounds[place])
    tight = zip(found, TIGHT_FLOOR_MS, TIGHT_MARGINS, bounds, strict=True)
    return (*bounds, *(min(_rounded(margin * value, floor), most) for value, floor, margin, most in tight))


def _milliseconds(seconds: float) -> int:
    """Rounded up, but for what a clock's differences are off by."""
    return math.ceil(1000 * seconds - 1e-3)


def _rounded(value: int, floor: int) -> int:
    """The least power of two times the floor that is no smaller."""
    times = -(-value // floor)
    return floor << max(times - 1, 0).bit_length()
