"""The dispute of one attempt as one peer sees it: the agreement on views, the decision, the roster's OUTCOMEs."""

from __future__ import annotations

from collections.abc import Iterator

from node.protocol.charges import encode_equivocations
from node.protocol.deadlines import outcome_s
from node.protocol.dispute import MAX_VIEWS, Dispute
from node.protocol.encoding import decode_body
from node.protocol.events import CancelTimer, Forward, Output, Say, SetTimer
from node.protocol.messages import Body, Endorsed, Outcome, Phase, Signed
from node.protocol.notices import Disputed, Resolved
from node.protocol.outcome import Trigger
from node.protocol.round import Round
from node.protocol.sequence import LackingError
from node.protocol.silence import encode_silences
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
        self._early: dict[int, list[Signed]] = {}
        self._outcomes: dict[int, tuple[Outcome, Signed]] = {}
        self._union: Union | None = None
        self._decision: Decision | None = None
        self._said = False
        self._tried: tuple[int, int] | None = None

    # --- inputs -----------------------------------------------------------------------------------------------

    def begin(self, trigger: Trigger) -> None:
        """Freeze the attempt, show everyone why, and broadcast our view."""
        if self.begun:
            return
        self.begun = self.round.frozen = True
        attempt = self._attempt
        attempt.disputed = True
        self._out.append(Disputed(attempt.step, attempt.number, trigger.cause))
        others = tuple(peer for peer in attempt.roster.active if peer != attempt.me)
        self._out.append(Forward(others, trigger.messages))
        messages = dict.fromkeys((*attempt.transcript.everything(), *trigger.messages))
        self._dispute.start(tuple(messages))
        early, self._early = self._early, {}
        for views in early.values():
            for view in views:
                self._dispute.take(Endorsed(view, ()))

    def take_view(self, endorsed: Endorsed) -> str | None:
        """A relayed view with its owner's valid signature; those that come before we begin wait, without their
        endorsements: in our first round they need none. Returns why it is refused."""
        if self.begun:
            return self._dispute.take(endorsed)
        owner = decode_body(endorsed.view.body).slot.sender
        if not self.hears(owner):
            return "too_many_views"
        self._early.setdefault(owner, []).append(endorsed.view)
        return None

    def hears(self, owner: int) -> bool:
        """Before we begin: true unless two views of this owner wait already."""
        return len(self._early.get(owner, ())) < MAX_VIEWS

    def knows(self, view: Signed) -> bool:
        """True if this view is here: the same one comes from every peer that relays it."""
        waiting = any(known.body == view.body for views in self._early.values() for known in views)
        return waiting or self._dispute.knows(view)

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
        held = len(attempt.aggregates), len(attempt.publications)
        if self._tried == held:
            return
        if self._tried is None:
            self._out.append(SetTimer(outcome_timer(attempt.step, attempt.number), outcome_s(attempt.settings)))
        self._tried = held
        if 2 * len(self._dispute.heard) <= len(attempt.roster.active):
            # While synchrony holds all honest views are here, which are more. What a minority signed would stand for
            # ever, and with the OUTCOMEs of two halves the attempt could never end: we halt, and can be resumed.
            return
        doubles = {owner: self._dispute.double_of(owner) for owner in self._dispute.doubles}
        self._union = Union(self._dispute.union(), self._dispute.heard, doubles, attempt, self.round.past)
        try:
            self._decision = self._union.decide()
        except LackingError:
            self._catch_up(self._union)
            return
        if self._decision is not None:
            self._said = True
            removals = tuple(guilt.removal for guilt in self._decision.guilts)
            slot = attempt.slot(Phase.OUTCOME)
            self._out.append(Say(attempt.roster.active, Outcome(slot, (), self._decision.value, removals)))

    def _catch_up(self, union: Union) -> None:
        """Ask for the bytes that the union says are there: the freeze may have come before we could."""
        for body, signed in union.admitted():
            self._attempt.transcript.add(body, signed)
        self.round.settle_cargo()
        for kind, item, holders in union.lacking():
            self._out += self.round.cargo.pull(kind, item, holders)

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

    @property
    def unheard(self) -> tuple[int, ...]:
        """Active peers whose OUTCOME is not here; where we could say none ourselves, those whose view is not."""
        heard = self._outcomes if self._said else {*self._outcomes, *self._dispute.heard}
        return tuple(peer for peer in self._attempt.roster.active if peer not in heard)

    def proofs(self) -> list[bytes]:
        """Equivocations and silence in our record of the attempt, for the next REPORT."""
        transcript = self._attempt.transcript
        return encode_equivocations(transcript) + encode_silences(transcript, self._attempt.roster.faults)

    def _resolve(self, body: Outcome, messages: tuple[Signed, ...]) -> None:
        self.resolved = (body, messages)
        attempt = self._attempt
        others = tuple(peer for peer in attempt.roster.active if peer != attempt.me)
        self._out.append(Forward(others, messages))
        self._out.append(CancelTimer(outcome_timer(attempt.step, attempt.number)))
        kind = "retry" if body.value is None else "commit"
        removed = tuple(removal.peer for removal in body.removals)
        self._out.append(Resolved(attempt.step, attempt.number, kind, removed))
