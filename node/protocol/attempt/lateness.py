"""Lateness: whom a peer waited for beyond its budget, and which pairs that ties.

A local timeout is never a reason to ban, and whoever sends just before every deadline is never suspected. So a peer
says in REPORT whom it waited for longer than it would have for an honest peer that nobody keeps waiting
(`deadlines.budget`). Laggards are told within 2 D what they lack (docs/adr/0016-laggards-are-told.md), so lateness goes
no further than from a tensor to the message that waits for it: one who is late with a message because it was itself
kept waiting for a tensor says so, and the late edge joins these two. One of the two is faulty: the wait is a lie, or it
is not. Source: PROTOCOL section 10, rule 5; docs/adr/0043-slowness.md.
"""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.timers import Timers
from btard.node.protocol.wire.messages import Have, Late, Phase, Report, Reveal


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
