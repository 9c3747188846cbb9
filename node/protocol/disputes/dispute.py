"""The dispute of one attempt as one peer sees it: the agreement on views, the decision, the roster's OUTCOMEs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from btard.node.protocol.adjudication.charges import Guilt, encode_equivocations, encode_silences
from btard.node.protocol.adjudication.judging import recomputed
from btard.node.protocol.api import CancelTimer, Disputed, Forward, Output, Resolved, Say, SetTimer
from btard.node.protocol.attempt.attempt import Trigger
from btard.node.protocol.attempt.deadlines import behind_s, settled_s
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.attempt.transfers import LackingError
from btard.node.protocol.disputes.dolev_strong import MAX_VIEWS, DolevStrong
from btard.node.protocol.disputes.resolution import Decision, ViewMerge
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Endorsed, Outcome, Phase, Removal, Signed, Void

MAX_OUTCOMES = 4
"""Of one sender that are kept: an honest one signs one."""


def outcome_timer(step: int, attempt: int) -> str:
    """Name of the timer after which a peer without a quorum of OUTCOMEs halts."""
    return f"outcome {step}.{attempt}"


class Dispute:
    """Created when the first sign of a dispute arrives; takes part from `begin` on.

    Args:
        round_: the attempt in question, under way or ended.
        out: where outputs are appended.
        abstains: asked before an OUTCOME is signed: true where this peer may have missed some of the rounds.
        incumbents: where this peer has been let in with the attempt, and may begin the rounds alone: those who have
            been there before. Half of them are more than can be faulty: it signs what so many sign alike.
    """

    def __init__(
        self, round_: Round, out: list[Output], abstains: Callable[[], bool] = bool, incumbents: tuple[int, ...] = ()
    ) -> None:
        self.round = round_
        self.trigger: Trigger | None = None
        """Why the attempt is frozen; its rounds begin once the attempt before is closed."""
        self.begun = False
        self._abstains, self._incumbents = abstains, incumbents
        self.resolved: Certificate | None = None
        """More than half of the roster's equal OUTCOMEs."""
        self.settled = False
        """The owner has acted on it."""
        self.follow_s = 0.0
        """How long whoever acts on it may need for the bytes and gradients that this takes; 0: nobody does yet."""
        self.followed = False
        """The wait for those who need bytes to follow it is over."""
        self._out = out
        attempt = round_.attempt
        self._attempt = attempt
        self._broadcast = DolevStrong(attempt.settings, attempt.tools, attempt.roster, attempt.slot(Phase.VIEW), out)
        self._early: dict[int, list[Signed]] = {}
        self._outcomes: dict[int, list[tuple[Outcome, Signed]]] = {}
        self._brought = Counter[tuple[int | None, int]]()
        self._union: ViewMerge | None = None
        self._decision: Decision | None = None
        self._said = False
        self._tried: tuple[int, int] | None = None

    # --- inputs -----------------------------------------------------------------------------------------------

    def freeze(self, trigger: Trigger) -> None:
        """Say no more in the attempt, and show everyone why; what arrives still goes into our view."""
        attempt = self._attempt
        self.trigger, self.round.frozen = trigger, True
        attempt.disputed = True
        self._out.append(Disputed(attempt.step, attempt.number, trigger.cause))
        others = tuple(peer for peer in attempt.roster.active if peer != attempt.me)
        self._out.append(Forward(others, trigger.messages))

    def begin(self, *first: Endorsed) -> None:
        """The rounds begin: sign our view, and broadcast it. Of all views that wait, those given are heard first."""
        assert self.trigger is not None and not self.begun
        self.begun = self.round.sealed = True
        self._broadcast.start(tuple(dict.fromkeys((*self._attempt.transcript.everything(), *self.trigger.messages))))
        for endorsed in first:
            self._broadcast.take(endorsed)
        early, self._early = self._early, {}
        for views in early.values():
            for view in views:
                self._broadcast.take(Endorsed(view, ()))

    def join(self, trigger: Trigger, endorsed: Endorsed) -> None:
        """Take part, with the certificate in our view, in the dispute of an attempt that we have ended by it.

        Args:
            trigger: why somebody has begun it.
            endorsed: the view that says so, with the chain that it came with: it is passed on with our signature.
        """
        attempt = self._attempt
        self.trigger, self.round.frozen = trigger, True
        attempt.disputed = True
        self._out.append(Disputed(attempt.step, attempt.number, trigger.cause))
        for signed in trigger.messages:
            attempt.transcript.add(decode_body(signed.body), signed)
        self.begin(endorsed)  # before two others of its owner's: it has to be passed on

    @property
    def frozen(self) -> bool:
        """There is a reason for a dispute."""
        return self.trigger is not None

    def proven_chain(self, endorsed: Endorsed, owner: int) -> int:
        """How many distinct active peers, its owner first, have signed a view that was admitted; 0 if not all of it is
        in order."""
        return self._broadcast.chain(endorsed, owner)

    @property
    def early(self) -> tuple[Signed, ...]:
        """Views that came before the rounds began."""
        return tuple(view for views in self._early.values() for view in views)

    @property
    def views(self) -> tuple[Signed, ...]:
        """Views that we have accepted, our own among them."""
        return self._broadcast.accepted

    @property
    def spoke(self) -> dict[int, Signed]:
        """A view of each peer that has signed one; ours brings them to all others."""
        return {decode_body(view.body).slot.sender: view for view in (*self.early, *self._broadcast.accepted)}

    def take_view(self, endorsed: Endorsed) -> str | None:
        """A relayed view with its owner's valid signature; those that come before we begin wait, without their
        endorsements: in our first round they need none. Returns why it is refused."""
        if self.begun:
            return self._broadcast.take(endorsed)
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
        return waiting or self._broadcast.knows(view)

    def take_outcome(self, body: Outcome, signed: Signed, via: int | None = None) -> str | None:
        """A signed OUTCOME of an active peer. A liar may sign several, and a majority may hold any of them: each
        counts for what it says, once. Returns why it is refused."""
        told = self._outcomes.setdefault(body.slot.sender, [])
        if any(known == body for known, _ in told):
            return "duplicate"
        if self._brought[via, body.slot.sender] >= MAX_OUTCOMES:  # by each line: a liar fills its own alone
            return "too_many_outcomes"
        self._brought[via, body.slot.sender] += 1
        told.append((body, signed))
        if self.resolved is None:
            every = (pair for of_peer in self._outcomes.values() for pair in of_peer)
            certificate = Certificate.among(every, self._attempt.roster.active)
            if certificate is not None:
                self._resolve(certificate)
            elif self._incumbents and 2 * self._backers(body) >= len(self._incumbents):
                self._sign(body.value, body.removals, backed=True)
        return None

    def _backers(self, body: Outcome) -> int:
        """How many incumbents have signed an OUTCOME that says the same."""
        said, told = (body.value, body.removals), self._outcomes
        words = ([(each.value, each.removals) for each, _ in told.get(peer, ())] for peer in self._incumbents)
        return sum(said in of_peer for of_peer in words)

    def round_over(self) -> None:
        """A round's timer ran out."""
        self._broadcast.round_over()
        if self._broadcast.finished:
            self.decide()

    # --- conclusions ------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Once the views are agreed on: judge the union and sign the OUTCOME; tried again when bytes arrive."""
        if not self._broadcast.finished or self._said or self.resolved is not None:
            return
        attempt = self._attempt
        held = len(attempt.aggregates), len(attempt.publications)
        if self._tried == held:
            return
        if self._tried is None:
            active, faults = len(attempt.roster.active), attempt.roster.faults
            patience_s = settled_s(attempt.settings, active)
            if self._incumbents:
                patience_s += behind_s(attempt.settings, active, faults, recomputed(self.round.past))
            self._out.append(SetTimer(outcome_timer(attempt.step, attempt.number), patience_s))
        self._tried = held
        if self.unheard_of:
            # While synchrony holds all honest views are here, which are more. What a minority signed would stand for
            # ever, and with the OUTCOMEs of two halves the attempt could never end: we halt, and can be resumed.
            return
        doubles = {owner: self._broadcast.double_of(owner) for owner in self._broadcast.doubles}
        self._union = ViewMerge(self._broadcast.union(), self._broadcast.heard, doubles, attempt, self.round.past)
        try:
            self._decision = self._union.decide()
        except LackingError:
            self._catch_up(self._union)
            return
        if self._decision is not None:
            self._sign(self._decision.value, tuple(guilt.removal for guilt in self._decision.guilts))

    def _catch_up(self, union: ViewMerge) -> None:
        """Ask for the bytes that the union says are there: the freeze may have come before we could."""
        for body, signed in union.admitted():
            self._attempt.transcript.adopt(body, signed)
        self.round.settle_cargo()
        for kind, item, holders in union.lacking():
            self._out += self.round.transfers.pull(kind, item, holders)

    def guilts(self) -> tuple[Guilt, ...]:
        """The guilt behind the OUTCOME's removals, with our own proofs where our decision is the roster's."""
        if self.resolved is None:
            return ()
        ours = {guilt.removal: guilt for guilt in (self._decision.guilts if self._decision is not None else ())}
        return tuple(ours.get(removal) or Guilt.ruled(removal) for removal in self.resolved.removals)

    def messages(self) -> Iterator[tuple[Body, Signed]]:
        """The union, for a peer that has to catch up (nothing where the OUTCOMEs came before the views)."""
        if self._union is not None:
            yield from self._union.admitted()

    @property
    def unheard_of(self) -> bool:
        """The rounds are over, and no majority's views came: the others are through with the attempt, or cut off."""
        broadcast = self._broadcast
        return broadcast.finished and 2 * len(broadcast.heard) <= len(self._attempt.roster.active)

    @property
    def undisputed(self) -> Certificate | None:
        """What ended the attempt, where our view has shown it to a roster of which no majority disputes it: whoever may
        still do so will have to sign the same. A CLOSE that came after our view need not be known to them, and waits
        for their OUTCOME."""
        return self._broadcast.shown() if self.unheard_of else None

    @property
    def unheard(self) -> tuple[int, ...]:
        """Active peers whose OUTCOME is not here; where we could say none ourselves, those whose view is not."""
        heard = self._outcomes if self._said else {*self._outcomes, *self._broadcast.heard}
        return tuple(peer for peer in self._attempt.roster.active if peer not in heard)

    def proofs(self) -> list[bytes]:
        """Equivocations and silence in our record of the attempt, for the next REPORT."""
        transcript = self._attempt.transcript
        return encode_equivocations(transcript) + encode_silences(transcript, self._attempt.roster.faults)

    def _sign(self, value: bytes | Void | None, removals: tuple[Removal, ...], backed: bool = False) -> None:
        """Our OUTCOME, once, unless we may have missed a part of the dispute."""
        if not self._said and (backed or not self._abstains()):
            self._said, attempt = True, self._attempt
            self._out.append(Say(attempt.roster.active, Outcome(attempt.slot(Phase.OUTCOME), (), value, removals)))

    def _resolve(self, certificate: Certificate) -> None:
        self.resolved = certificate
        attempt = self._attempt
        others = tuple(peer for peer in attempt.roster.active if peer != attempt.me)
        self._out.append(Forward(others, certificate.messages))
        # What we act on we sign too: all honest ones are a majority, whatever the others' signatures are worth.
        self._sign(certificate.value, certificate.removals)
        self._out.append(CancelTimer(outcome_timer(attempt.step, attempt.number)))
        kind = "retry" if certificate.value is None else "commit"
        removed = tuple(removal.peer for removal in certificate.removals)
        self._out.append(Resolved(attempt.step, attempt.number, kind, removed))
