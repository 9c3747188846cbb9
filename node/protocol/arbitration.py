"""The dispute of one attempt as one peer sees it: the agreement on views, the decision, the roster's OUTCOMEs."""

from __future__ import annotations

from collections.abc import Iterator

from node.protocol.charges import encode_equivocation
from node.protocol.deadlines import outcome_s
from node.protocol.dispute import Dispute
from node.protocol.events import CancelTimer, Disputed, Forward, Output, Resolved, Say, SetTimer
from node.protocol.messages import Body, Endorsed, Outcome, Phase, Signed
from node.protocol.outcome import Trigger
from node.protocol.round import Round
from node.protocol.sequence import LackingError
from node.protocol.tribunal import Guilt
from node.protocol.union import Decision, Union


def outcome_timer(step: int, attempt: int) -> str:
    """Name of the timer after which a peer without a quorum of OUTCOMEs halts."""
    return f"outcome {step}.{attempt}"


class Arbitration:
    """Created when the first sign of a dispute arrives; takes part from `begin` on.

    Args:
        round_: the attempt in question, under way or ended.
        out: where outputs are appended.
    """

    def __init__(self, round_: Round, out: list[Output]) -> None:
        self.round = round_
        self.begun = False
        self.resolved: tuple[Outcome, tuple[Signed, ...]] | None = None
        """More than half of the roster's equal OUTCOMEs."""
        self.settled = False
        """The owner has acted on it."""
        self._out = out
        attempt = round_.attempt
        self._attempt = attempt
        self._dispute = Dispute(attempt.settings, attempt.tools, attempt.roster, attempt.slot(Phase.VIEW), out)
        self._early: list[Endorsed] = []
        self._outcomes: dict[int, tuple[Outcome, Signed]] = {}
        self._union: Union | None = None
        self._decision: Decision | None = None
        self._said = False

    # --- inputs -----------------------------------------------------------------------------------------------

    def begin(self, trigger: Trigger) -> None:
        """Freeze the attempt, show everyone why, and broadcast our view."""
        if self.begun:
            return
        self.begun = self.round.frozen = True
        attempt = self._attempt
        self._out.append(Disputed(attempt.step, attempt.number, trigger.cause))
        others = tuple(peer for peer in attempt.roster.active if peer != attempt.me)
        self._out.append(Forward(others, trigger.messages))
        messages = dict.fromkeys((*attempt.transcript.everything(), *trigger.messages))
        self._dispute.start(tuple(messages))
        early, self._early = self._early, []
        for endorsed in early:
            self._dispute.take(endorsed)

    def take_view(self, endorsed: Endorsed) -> str | None:
        """A relayed view; those that come before we begin wait. Returns why it is refused."""
        if self.begun:
            return self._dispute.take(endorsed)
        if len(self._early) < 4 * len(self._attempt.roster.active):
            self._early.append(endorsed)
            return None
        return "too_early"

    def take_outcome(self, body: Outcome, signed: Signed) -> None:
        """A signed OUTCOME of an active peer; the first of each counts."""
        self._outcomes.setdefault(body.slot.sender, (body, signed))
        equal = [
            (known, message)
            for known, message in self._outcomes.values()
            if (known.value, known.removals) == (body.value, body.removals)
        ]
        if self.resolved is None and 2 * len(equal) > len(self._attempt.roster.active):
            self._resolve(body, tuple(message for _, message in equal))

    def round_over(self) -> None:
        """A round's timer ran out."""
        self._dispute.round_over()
        if self._dispute.finished:
            self.decide()

    # --- conclusions ------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Once the views are agreed on: judge the union and sign the OUTCOME; tried again when bytes arrive."""
        if not self._dispute.finished or self._said or self.resolved is not None:
            return
        attempt = self._attempt
        doubles = {owner: self._dispute.double_of(owner) for owner in self._dispute.doubles}
        try:
            self._union = Union(self._dispute.union(), doubles, attempt, self.round.past)
            self._decision = self._union.decide()
        except LackingError:
            return
        self._out.append(SetTimer(outcome_timer(attempt.step, attempt.number), outcome_s(attempt.settings)))
        if self._decision is not None:
            self._said = True
            removals = tuple(guilt.removal for guilt in self._decision.guilts)
            slot = attempt.slot(Phase.OUTCOME)
            self._out.append(Say(attempt.roster.active, Outcome(slot, (), self._decision.value, removals)))

    def guilts(self) -> tuple[Guilt, ...]:
        """The guilt behind the OUTCOME's removals, with our own proofs where our decision is the roster's."""
        if self.resolved is None:
            return ()
        ours = {guilt.removal: guilt for guilt in (self._decision.guilts if self._decision is not None else ())}
        return tuple(ours.get(removal) or Guilt.ruled(removal) for removal in self.resolved[0].removals)

    def messages(self) -> Iterator[tuple[Body, Signed]]:
        """The union, for a peer that has to catch up (nothing where the OUTCOMEs came before the views)."""
        if self._union is not None:
            yield from self._union.admitted()

    def proofs(self) -> list[bytes]:
        """Equivocations in our record of the attempt, for the next REPORT."""
        return [encode_equivocation(*pair) for pair in self._attempt.transcript.conflicts.values()]

    def _resolve(self, body: Outcome, messages: tuple[Signed, ...]) -> None:
        self.resolved = (body, messages)
        attempt = self._attempt
        others = tuple(peer for peer in attempt.roster.active if peer != attempt.me)
        self._out.append(Forward(others, messages))
        self._out.append(CancelTimer(outcome_timer(attempt.step, attempt.number)))
        kind = "retry" if body.value is None else "commit"
        removed = tuple(removal.peer for removal in body.removals)
        self._out.append(Resolved(attempt.step, attempt.number, kind, removed))
