"""How an attempt ends and the next one begins: committed or void, by CLOSEs or by the OUTCOME of a dispute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from btard.node.protocol.adjudication.accusations import evidence_in
from btard.node.protocol.adjudication.charges import encode_equivocations
from btard.node.protocol.adjudication.verdict import Guilt, Judgement
from btard.node.protocol.api.events import CancelTimer, Forward, Say, SetTimer
from btard.node.protocol.api.notices import Banned, Committed, Expelled, Finished, Probed, Returned, Voided
from btard.node.protocol.attempt import timers
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import fetching_s, laggards_s, outcome_s, settled_s
from btard.node.protocol.attempt.ending import Ending
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.mprng import share
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.before import Before
from btard.node.protocol.disputes.router import DisputeRouter
from btard.node.protocol.evidence.format import gather
from btard.node.protocol.state.rollback import undone
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.state_sync.probation import candidates_of
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Outcome, Phase, View
from btard.node.protocol.wire.size_limits import MAX_PROOFS


class AttemptLifecycle(DisputeRouter):
    """The third layer of a peer: from one attempt to the next."""

    def _begin(self, number: int, before: Before) -> None:
        """Start an attempt at the current step; messages that came early are taken up.

        Args:
            number: of the attempt.
            before: the attempt before it.
        """
        own_share = share(self._secret_seed, self.state.step, number)
        attempt = Attempt(self.settings, self.tools, self.state, number, self.me, own_share)
        proofs = self._take_proofs(attempt)
        self._before, self._dispute, self._recalled = before, None, Counter()
        again = self._resumed is not None and (self._resumed.state.step, self._resumed.number) == (
            self.state.step,
            number,
        )
        self._round = Round(attempt, self.past, self._gradients, self._out, proofs, again, self._sync_server,
                            self._patience_s(attempt), self._watch)  # fmt: skip
        self._round.begin()
        if before.held:
            self._out += [CancelTimer(name) for name in timers.OF_AN_ATTEMPT]
        if before.round is not None:
            # An honest peer that was eliminated may not know why: nobody tells it anything from here on.
            left = tuple(peer for peer in before.round.attempt.roster.active if peer not in attempt.roster.active)
            if left:
                self._out.append(Forward(left, self._certificate))
        self._out.append(SetTimer(timers.FORWARD, laggards_s(attempt.settings)))
        for signed in self._admission.release():
            refused = self._message(None, signed)
            if refused is not None:
                self._drop(None, refused)
        self._join_for_early_views()

    def _patience_s(self, attempt: Attempt) -> float:
        """How long others may be in coming to an attempt: those that we could not greet, those that were let back."""
        if any(since == attempt.step for _, since in attempt.state.summary.returned):
            return fetching_s(attempt.settings, len(attempt.roster.active))
        first = (attempt.step, attempt.number) == (0, 0)
        return outcome_s(self.settings) if first and self._greeting.missing else 0.0

    def _ended(self, certificate: Certificate) -> Before:
        """The attempt under way, which has just ended, as the one before the next."""
        round_, dispute = self._round, self._dispute
        assert round_ is not None
        if not certificate.by_outcome:
            return Before(round_, round_.attempt.roster.faults + 1, closed=False, dispute=dispute)
        # An OUTCOME that removes somebody and lets a value stand leaves some without the bytes of that value.
        at_once = certificate.value is None or not certificate.removals
        closed = at_once or dispute is None or dispute.followed
        return Before(round_, closed=closed, held=not closed, dispute=dispute)

    def _take_proofs(self, attempt: Attempt) -> tuple[bytes, ...]:
        """Evidence of earlier attempts for our REPORT: one piece against each peer, as much as a REPORT may carry. The
        rest waits, but for what convicts nobody any more."""
        found: dict[int, bytes] = {}
        for data in self._proofs:
            charge = evidence_in(data, attempt)
            if charge is not None:
                found.setdefault(charge.accused, data)
        pieces = list(found.values())
        self._proofs = pieces[MAX_PROOFS:]
        return tuple(pieces[:MAX_PROOFS])

    def _resolve(self) -> bool:
        """Act on a dispute's OUTCOMEs."""
        background, dispute = self._background, self._dispute
        if background is not None and background.resolved is not None and not background.settled:
            background.settled = True
            self._charge(background)
            self._heed(background.resolved)
            return True
        if dispute is None:
            return False
        dispute.decide()
        if dispute.resolved is None:
            return False
        outcome = dispute.resolved
        round_ = dispute.round
        if outcome.value is not None and outcome.removals and not dispute.settled:
            dispute.settled = True
            patience_s = settled_s(round_.attempt.settings, len(round_.attempt.roster.active))
            self._out.append(SetTimer(timers.BEFORE, patience_s))
        if outcome.value is None:
            state = round_.attempt.state.punished(
                round_.attempt.step, round_.attempt.number, outcome.removals, reform=False
            )
            self._settle(Ending(Judgement((), void=True), state, outcome), dispute.guilts())
            return True
        verdict = round_.conclude(dispute.messages())
        if verdict is None:
            if self._is_out(round_.attempt, outcome):
                return True
            if not dispute.lacking:  # we may have been started again too late for anybody to owe them to us
                dispute.lacking = True
                self._out.append(SetTimer(timers.STALL, settled_s(self.settings, len(round_.attempt.roster.active))))
            return False
        judgement, state = verdict
        self._proofs += dispute.proofs() if not outcome.removals else []
        # Who is banned by the value that stands is not removed a second time.
        more = tuple(guilt for guilt in dispute.guilts() if guilt.peer in state.roster.active)
        removals = tuple(guilt.removal for guilt in more)
        state = state.punished(round_.attempt.step, round_.attempt.number, removals, reform=False)
        self._settle(Ending(judgement, state, outcome), more)
        return True

    def _is_out(self, attempt: Attempt, outcome: Certificate) -> bool:
        """Started again inside the dispute that removes us: what the step comes to is for those who are left, and they
        send us no tensors of it any more. True if we have gone to wait outside."""
        if not self.comes_back or all(removal.peer != self.me for removal in outcome.removals):
            return False
        after = attempt.state.punished(attempt.step, attempt.number, outcome.removals, reform=False)
        candidate = self._outside(attempt.step, after)
        if candidate is not None:
            candidate.ask_soon()
        return True

    def _settle(self, ending: Ending, more: tuple[Guilt, ...] = ()) -> None:
        """An attempt is over: by n equal CLOSEs, or by the OUTCOME of a dispute (which may add guilt)."""
        assert self._round is not None
        attempt = self._round.attempt
        if self._dispute is not None:
            # Its dispute may still come, in the background, and then has to let the next attempt go on.
            self._dispute.settled = self._dispute.resolved is not None
        before = self._ended(ending.certificate)
        self._out += [CancelTimer(name) for name in timers.OF_AN_ATTEMPT]
        self._certificate = ending.certificate.messages
        if not more:
            self._proofs += encode_equivocations(attempt.transcript)
        if ending.judgement.void:
            self._void(attempt, ending, more, before)
        else:
            self._commit(attempt, ending, more, before)

    def _void(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...], before: Before) -> None:
        self._announce(attempt, ending, more, None)
        self.state = ending.state
        if self._round is not None:
            self._proofs = [*self._round.proofs, *self._proofs]  # no REPORT of this attempt counts
        removed = tuple(peer for peer in attempt.roster.active if peer not in self.state.roster.active)
        self._out.append(Voided(attempt.step, attempt.number, removed))
        if self._still_in(attempt, ending):
            self._begin(attempt.number + 1, before)

    def _commit(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...], before: Before) -> None:
        state = replace(ending.state, certificate=ending.certificate.messages)
        self._announce(attempt, ending, more, state)
        self._out += [_committed(attempt, state), *_probations(attempt, state), *undone(attempt, state)]
        attempt.parts = {}
        self.past, self.state, self._gradients = attempt, state, Gradients()
        self._sync_server.teach(state, attempt)
        if not self._still_in(attempt, ending):
            return
        if state.step > self.settings.steps and not state.summary.undo:
            self._part(attempt, ending)
            self.stopped = True
            self._out.append(Finished(attempt.step, state.parameters_D))
        else:
            self._begin(0, before)

    # --- after the end ----------------------------------------------------------------------------------------

    def _heed(self, outcome: Certificate) -> None:
        """The OUTCOME of the attempt before: it outranks the certificate by which we ended it. While synchrony holds
        they say the same; where they do not, we were cut off."""
        previous, before = self._previous, self._before
        assert previous is not None
        ours = Certificate.of(self._certificate)
        if outcome.value != ours.value:
            return self._cut_off()
        if outcome.removals in ((), ours.removals):
            if not ours.by_outcome:
                before.proof = outcome.messages
            return None if before.closed else self._close_before(before.proof)
        return self._begin_anew(previous.attempt, outcome)

    def _begin_anew(self, attempt: Attempt, outcome: Certificate) -> None:
        """Cut off, we have missed what a dispute adds to the value that stands: it removes peers from the attempt under
        way, which starts again without them."""
        assert self._round is not None
        number, round_ = self._round.attempt.number, self._before.round
        guilts = tuple(Guilt.ruled(each) for each in outcome.removals if each.peer in self.state.roster.active)
        removals = tuple(guilt.removal for guilt in guilts)
        state = self.state.punished(attempt.step, attempt.number, removals, reform=False)
        if state.step > attempt.step:
            state = replace(state, certificate=outcome.messages)
        ending = Ending(Judgement((), void=state.step == attempt.step), state, outcome)
        after = state if state.step > attempt.step else None
        for guilt, ban in zip(guilts, state.bans[len(self.state.bans) :], strict=True):
            past = round_.past if round_ is not None else None
            evidence = gather(guilt, ban, attempt, past, after, outcome.messages)
            self._out.append(Banned(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed, evidence))
        self.state, self._certificate = state, outcome.messages
        self._out += [CancelTimer(name) for name in timers.OF_AN_ATTEMPT]
        if self._still_in(attempt, ending):
            self._begin(number, Before(round_, proof=outcome.messages))

    def _cut_off(self) -> None:
        """A majority has ended the attempt before otherwise than its certificate says: the rest of the roster went on
        without us, from another state. We sign nothing more, and return as a peer that was removed, if we may."""
        if not self.comes_back:
            text = "was cut off: the others ended the step before otherwise; start this peer again to let it return"
            return self._halt(self.me, text)
        self._candidate = self._new_candidate()
        self._candidate.convinced = True
        return self._candidate.ask()

    def _ended_without_us(self) -> bool:
        """Frozen in an attempt whose certificate removes us while all others are in the next one: that is our end."""
        round_ = self._round
        if round_ is None or round_.verdict is None:
            return False
        (judgement, after), attempt = round_.verdict, round_.attempt
        certificate = attempt.certificate()
        if self.me in after.roster.active or certificate is None:
            return False
        number = attempt.number + 1 if judgement.void else 0
        there = self._admission.speakers(after.step, number, after.roster.digest)
        if not there.issuperset(after.roster.active):
            return False
        self._settle(Ending(judgement, after, certificate))
        return True

    def _announce(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...], after: State | None) -> None:
        fresh = ending.state.bans[len(attempt.state.bans) :]
        for guilt, ban in zip((*ending.judgement.guilts, *more), fresh, strict=True):
            evidence = gather(guilt, ban, attempt, self.past, after, ending.certificate.messages)
            self._out.append(Banned(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed, evidence))

    def _still_in(self, attempt: Attempt, ending: Ending) -> bool:
        if self.me in self.state.roster.active:
            return True
        self._part(attempt, ending)
        candidate = self._outside(attempt.step, self.state)
        if candidate is not None:
            candidate.ask()
        return False

    def _outside(self, step: int, state: State) -> StateSyncClient | None:
        """We are removed in a state: the way back that we take, None if this is our end."""
        if self.comes_back and self.me in candidates_of(self.settings, state):
            self._candidate = self._new_candidate()
            self._candidate.convinced = True
            return self._candidate
        self.stopped = True
        reason = next(ban.reason for ban in reversed(state.bans) if ban.peer == self.me)
        self._out.append(Expelled(step, reason))
        return None

    def _part(self, attempt: Attempt, ending: Ending) -> None:
        """We take no further part: nobody will be here to answer a laggard's SUSPECT with what ended the attempt, nor
        to show it in a dispute that others are about to begin, nor to say how that dispute ends. Our view is in time:
        whoever froze before now told us less than D ago."""
        others = tuple(peer for peer in attempt.roster.active if peer != self.me)
        certificate = ending.certificate
        self._out.append(Forward(others, certificate.messages))
        if self._dispute is None or not self._dispute.begun:
            self._out.append(Say(others, View(attempt.slot(Phase.VIEW), (), certificate.messages)))
            if not certificate.by_outcome:
                self._out.append(Say(others, Outcome(attempt.slot(Phase.OUTCOME), (), certificate.value, ())))
        self._out.append(CancelTimer(timers.FORWARD))

    def _new_candidate(self) -> StateSyncClient:
        return StateSyncClient(self.settings, self.tools, self.me, self._secret_seed, self.state, self._out)


def _probations(attempt: Attempt, state: State) -> Iterator[Probed | Returned]:
    """What a committed step changed for peers that come back."""
    before, needed = dict(attempt.state.summary.probation), attempt.settings.probation
    evidence = encode((state.summary, state.certificate))
    for peer, since in state.summary.returned[len(attempt.state.summary.returned) :]:
        yield Probed(attempt.step, attempt.number, peer, needed, needed)
        yield Returned(attempt.step, attempt.number, peer, evidence)
        assert since == state.step
    for peer, correct in state.summary.probation:
        if before.get(peer) != correct:
            yield Probed(attempt.step, attempt.number, peer, correct, needed)


def _committed(attempt: Attempt, state: State) -> Committed:
    return Committed(
        step=attempt.step,
        attempt=attempt.number,
        contributors=attempt.contributors,
        active=attempt.roster.active,
        validators=dict(attempt.pairs),
        parameters_D=state.parameters_D,
        state_digest=state.summary.digest,
        certificate=encode((state.summary, state.certificate)),
        clip_iterations=attempt.iterations,
        parameter_digest=state.summary.parameters,
    )
