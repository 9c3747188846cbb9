"""How attempts begin and end: after the greeting or a restart, committed or void, by CLOSEs or by the OUTCOME of a
dispute; and the way out of the roster and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from btard.node.protocol.adjudication.charges import Guilt, encode_equivocations
from btard.node.protocol.adjudication.judging import Judgement, recomputed
from btard.node.protocol.api import (
    Banned,
    CancelTimer,
    Committed,
    Dropped,
    Entered,
    Expelled,
    Finished,
    Forward,
    Lapsed,
    Probed,
    RequestTranscript,
    Returned,
    Say,
    SetTimer,
    Voided,
)
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import Watch, behind_s, fetching_s, laggards_s, outcome_s, settled_s
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.attempt.mprng import share
from btard.node.protocol.attempt.round import Ending, Round, value_of
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.evidence.format import gather
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.router import DisputeRouter
from btard.node.protocol.state.state import AttemptRecord, Ban, Resumption, State
from btard.node.protocol.state.transition import undone
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.state_sync.probation import absent_of, candidates_of
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Outcome, Phase, Signed, View


class AttemptLifecycle:
    """From one attempt to the next, from the greeting to the last; out of the roster, and back.

    Args:
        shared: what the peer holds.
        router: where messages of the attempts go.
        greeting: the HELLOs that it has heard.
        sync_server: told of each committed step.
        watch: what the driver says of the time.
    """

    def __init__(
        self, shared: PeerState, router: DisputeRouter, greeting: Greeting, sync_server: StateSyncServer, watch: Watch
    ) -> None:
        self._shared, self._router, self._greeting = shared, router, greeting
        self._sync_server, self._watch = sync_server, watch
        self.gradients = Gradients()
        """Of the step under way, kept from attempt to attempt."""
        self._again: tuple[int, int] | None = None
        """The attempt (step, number) in the midst of which we were started again."""
        self._viewed: tuple[int, int] | None = None
        """It, if a view of it stands from an earlier life, whose dispute we did not take up again."""

    def advance(self) -> bool:
        """One move; true if anything happened, and there may be another."""
        shared = self._shared
        if shared.stopped:
            return False
        if shared.client is not None and shared.client.convinced:
            return self._rejoin(shared.client)
        round_ = shared.round
        if round_ is None:
            return self._meet()
        background = self._router.previous.dispute
        disputed = shared.dispute is not None or (background is not None and background.resolved is not None)
        if disputed and self._resolve():
            return True
        if round_.advance():
            return True
        if round_.trigger is not None and not round_.frozen:
            self._router.check_trigger()
            return True
        if round_.frozen and self._ended_without_us(round_):
            return True
        if round_.ending is not None and not round_.frozen:
            self._settle(round_.ending)
            return True
        return False

    # --- the beginning ----------------------------------------------------------------------------------------

    def _meet(self) -> bool:
        """Start once everybody has said HELLO; up to f odd or silent peers may be lying, and hold nobody up."""
        shared, greeting = self._shared, self._greeting
        if not greeting.complete:
            return False
        if len(greeting.odd) > shared.state.roster.faults:
            differs = shared.tools.explained(shared.settings.fingerprint, greeting.elsewhere)
            text = (
                "computes in another environment than this peer, so gradients would not repeat bit for bit"
                f"{differs and f' ({differs})'}; use hardware and versions that compute the same, --arithmetic "
                "portable, or --recompute-tolerance"
            )
            shared.halt(greeting.odd[0], text)
            return False
        shared.out += [Dropped(peer, "odd_environment") for peer in greeting.odd]
        shared.state = shared.state.with_facts(fingerprints=greeting.fingerprints)
        shared.certificate = tuple(greeting.messages())
        shared.out += [CancelTimer(deadlines.HELLO), CancelTimer(deadlines.UNBEGUN)]
        previous = PreviousAttempt(shared, closed=False)
        previous.told = greeting.told
        self._begin(0, previous)
        return True

    def apply(self) -> None:
        """A newcomer begins where a peer that was removed does: outside, knowing the founding roster, until it is told
        that it is on probation."""
        shared = self._shared
        shared.comes_back = True
        shared.client = shared.new_client()
        shared.client.convinced = True
        shared.client.ask()

    def resume(self, before: Resumption, away_s: float) -> None:
        """Go on in the attempt in which we were stopped; the others may be in it, or one step ahead.

        Args:
            before: what was kept.
            away_s: how long ago.
        """
        shared = self._shared
        shared.state, shared.certificate, shared.proofs = before.state, before.certificate, list(before.proofs)
        if before.past is not None:
            shared.past = self._recalled(before.past)
        self._again = before.state.step, before.number
        self._viewed = self._again if before.viewed else None
        self._begin(before.number, self._remembered(before, away_s))
        others = tuple(peer for peer in shared.state.roster.active if peer != shared.me)
        shared.out.append(RequestTranscript(others, shared.state.step, before.number))

    def _remembered(self, before: Resumption, away_s: float) -> PreviousAttempt:
        """The attempt before the one that we go on with, from what was kept: we answer its dispute while others still
        can join it, and say nothing of how one ends that we may have missed a part of."""
        shared = self._shared
        shared.missed.add((before.state.step, before.number))
        attempt = shared.past if before.number == 0 else None
        if before.before is not None:
            attempt = self._recalled(before.before)
        if attempt is None or attempt.me != shared.me:
            return PreviousAttempt(shared)
        shared.missed.add((attempt.step, attempt.number))
        shared.round = Round(attempt, None, Gradients(), shared.out)
        shared.round.phase = Phase.CLOSE
        ended = PreviousAttempt.ended(shared, Certificate.of(before.certificate))
        ended.age_s = away_s
        if ended.delays:
            wait_s = settled_s(attempt.settings, len(attempt.roster.active), recomputed(attempt))
            shared.out.append(SetTimer(deadlines.BEFORE, max(wait_s - away_s, 0.0)))
        return ended

    def _recalled(self, record: AttemptRecord) -> Attempt:
        shared = self._shared
        return Attempt.of(record, shared.settings, shared.tools, shared.me, shared.secret_seed)

    def _begin(self, number: int, previous: PreviousAttempt) -> None:
        """Start an attempt at the current step; messages that came early are taken up.

        Args:
            number: of the attempt.
            previous: the attempt before it.
        """
        shared = self._shared
        own_share = share(shared.secret_seed, shared.state.step, number)
        attempt = Attempt(shared.settings, shared.tools, shared.state, number, shared.me, own_share)
        proofs = shared.take_proofs(attempt)
        self._router.previous, shared.dispute = previous, None
        shared.forget_asked()
        again = self._again == (shared.state.step, number) or self._was_here(attempt)
        shared.round = Round(attempt, shared.past, self.gradients, shared.out, proofs, again, self._sync_server,
                             self.patience_s(attempt), self._watch)  # fmt: skip
        shared.round.begin()
        if previous.delays:
            shared.out += [CancelTimer(name) for name in deadlines.OF_AN_ATTEMPT]
        if previous.round is not None:
            # An honest peer that was eliminated may not know why: nobody tells it anything from here on.
            left = tuple(peer for peer in previous.round.attempt.roster.active if peer not in attempt.roster.active)
            if left:
                shared.out.append(Forward(left, shared.certificate))
        shared.out.append(SetTimer(deadlines.FORWARD, laggards_s(attempt.settings)))
        if previous.told:
            previous.pass_on()
        self._router.take_up_what_waited()
        place = shared.state.step, number
        for key, values_P in [kept for kept in shared.kept if (kept[0].step, kept[0].attempt) == place]:
            shared.round.take_bulk(None, key, values_P)
        shared.kept = [kept for kept in shared.kept if (kept[0].step, kept[0].attempt) > place]

    def _was_here(self, attempt: Attempt) -> bool:
        """Started again from further back than we had been: we have spoken in this attempt, and what we were told in it
        meanwhile is asked for."""
        shared, place = self._shared, (attempt.step, attempt.number)
        if shared.me not in self._router.admission.speakers(*place, attempt.roster.digest):
            return False
        shared.missed.add(place)
        others = tuple(peer for peer in attempt.roster.active if peer != shared.me)
        shared.out.append(RequestTranscript(others, *place))
        return True

    def patience_s(self, attempt: Attempt) -> float:
        """How long others may be in coming to an attempt: those that we could not greet, those that were let back."""
        active = len(attempt.roster.active)
        if (attempt.step, attempt.number) == self._shared.let_in:
            return behind_s(attempt.settings, active, attempt.roster.faults, recomputed(self._shared.past))
        if any(since == attempt.step for _, since in attempt.state.summary.returned):
            return fetching_s(attempt.settings, active)
        first = (attempt.step, attempt.number) == (0, 0)
        return outcome_s(self._shared.settings) if first and self._greeting.missing else 0.0

    # --- the end ----------------------------------------------------------------------------------------------

    def _resolve(self) -> bool:
        """Act on a dispute's OUTCOMEs."""
        shared = self._shared
        background, dispute = self._router.previous.dispute, shared.dispute
        if background is not None and background.resolved is not None and not background.settled:
            background.settled = True
            shared.charge(background)
            self._heed(background.resolved)
            return True
        if dispute is None:
            return False
        dispute.decide()
        round_ = dispute.round
        attempt = round_.attempt
        outcome = dispute.resolved or dispute.undisputed
        if outcome is None:
            return False
        if outcome.value is None:
            state = attempt.state.punished(attempt.step, attempt.number, outcome.removals, reform=False)
            self._settle(Ending(Judgement((), void=True), state, outcome), dispute.guilts())
            return True
        # A value that stands without a removal is that of n CLOSEs, ours among them.
        verdict = round_.conclude(dispute.messages(), certified=not outcome.removals)
        wait_s = settled_s(attempt.settings, len(attempt.roster.active), recomputed(attempt))
        longer = wait_s > dispute.follow_s  # only now REPORTs may be here, which say what there is to compute
        dispute.follow_s = max(dispute.follow_s, wait_s)
        if longer and outcome.removals:
            shared.out.append(SetTimer(deadlines.BEFORE, wait_s))
        if verdict is None:
            if self._is_out(attempt, outcome):
                return True
            if longer:  # we may have been started again too late for anybody to owe us the bytes
                shared.out.append(SetTimer(deadlines.STALL, wait_s))
            return False
        judgement, state = verdict
        if value_of(judgement, state) != outcome.value:
            self._cut_off()
            return True
        shared.proofs += dispute.proofs() if not outcome.removals else []
        # Who is banned by the value that stands is not removed a second time.
        more = tuple(guilt for guilt in dispute.guilts() if guilt.peer in state.roster.active)
        removals = tuple(guilt.removal for guilt in more)
        state = state.punished(attempt.step, attempt.number, removals, reform=False)
        self._settle(Ending(judgement, state, outcome), more)
        return True

    def _settle(self, ending: Ending, more: tuple[Guilt, ...] = ()) -> None:
        """An attempt is over: by n equal CLOSEs, or by the OUTCOME of a dispute (which may add guilt)."""
        shared = self._shared
        assert shared.round is not None
        attempt = shared.round.attempt
        if shared.dispute is not None:
            # Its dispute may still come, in the background, and then has to let the next attempt go on.
            shared.dispute.settled = shared.dispute.resolved is not None
        ended = PreviousAttempt.ended(shared, ending.certificate)
        shared.out += [CancelTimer(name) for name in deadlines.OF_AN_ATTEMPT]
        shared.certificate = ending.certificate.messages
        shared.proofs += encode_equivocations(attempt.transcript)
        if ending.judgement.void:
            self._void(shared.round, ending, more, ended)
        else:
            self._commit(attempt, ending, more, ended)

    def _void(self, round_: Round, ending: Ending, more: tuple[Guilt, ...], ended: PreviousAttempt) -> None:
        shared, attempt, certificate = self._shared, round_.attempt, ending.certificate.messages
        guilts, fresh = (*ending.judgement.guilts, *more), ending.state.bans[len(attempt.state.bans) :]
        self._announce(guilts, fresh, attempt, shared.past, None, certificate)
        shared.state = ending.state
        shared.proofs = [*round_.proofs, *shared.proofs]  # no REPORT of this attempt counts
        removed = tuple(peer for peer in attempt.roster.active if peer not in shared.state.roster.active)
        shared.out.append(Voided(attempt.step, attempt.number, removed))
        if self._still_in(attempt, ending):
            self._begin(attempt.number + 1, ended)

    def _commit(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...], ended: PreviousAttempt) -> None:
        shared, certificate = self._shared, ending.certificate.messages
        state = replace(ending.state, certificate=certificate)
        guilts, fresh = (*ending.judgement.guilts, *more), state.bans[len(attempt.state.bans) :]
        self._announce(guilts, fresh, attempt, shared.past, state, certificate)
        shared.out += [
            _committed(attempt, state),
            *_probations(attempt, state),
            *_newcomers(attempt, state),
            *undone(attempt, state),
        ]
        attempt.parts = {}
        shared.past, shared.state, self.gradients = attempt, state, Gradients()
        self._sync_server.teach(state, attempt)
        if not self._still_in(attempt, ending):
            return
        if state.summary.ends(shared.settings.steps):
            self._part(attempt, ending)
            shared.stopped = True
            shared.out.append(_finished(state))
        else:
            self._begin(0, ended)

    def _ended_without_us(self, round_: Round) -> bool:
        """Frozen in an attempt whose certificate removes us while all others are in the next one: that is our end."""
        if round_.verdict is None:
            return False
        (judgement, after), attempt = round_.verdict, round_.attempt
        certificate = attempt.certificate()
        if self._shared.me in after.roster.active or certificate is None:
            return False
        number = attempt.number + 1 if judgement.void else 0
        there = self._router.admission.speakers(after.step, number, after.roster.digest)
        if not there.issuperset(after.roster.active):
            return False
        self._settle(Ending(judgement, after, certificate))
        return True

    # --- after the end ----------------------------------------------------------------------------------------

    def _heed(self, outcome: Certificate) -> None:
        """The OUTCOME of the attempt before: it outranks the certificate by which we ended it. While synchrony holds
        they say the same; where they do not, we were cut off."""
        previous, ours = self._router.previous, Certificate.of(self._shared.certificate)
        assert previous.round is not None
        if outcome.value != ours.value:
            return self._cut_off()
        if outcome.removals in ((), ours.removals):
            if not ours.by_outcome:
                previous.proof = outcome.messages
            return None if previous.closed or ours.by_outcome else previous.close(previous.proof)
        return self._begin_anew(previous.round, outcome)

    def _begin_anew(self, ended: Round, outcome: Certificate) -> None:
        """Cut off, we have missed what a dispute adds to the value that stands: it removes peers from the attempt under
        way, which starts again without them."""
        shared, attempt = self._shared, ended.attempt
        assert shared.round is not None
        number = shared.round.attempt.number
        guilts = tuple(Guilt.ruled(each) for each in outcome.removals if each.peer in shared.state.roster.active)
        removals = tuple(guilt.removal for guilt in guilts)
        state = shared.state.punished(attempt.step, attempt.number, removals, reform=False)
        if state.step > attempt.step:
            state = replace(state, certificate=outcome.messages)
        ending = Ending(Judgement((), void=state.step == attempt.step), state, outcome)
        after = state if state.step > attempt.step else None
        fresh = state.bans[len(shared.state.bans) :]
        self._announce(guilts, fresh, attempt, ended.past, after, outcome.messages)
        shared.state, shared.certificate = state, outcome.messages
        shared.out += [CancelTimer(name) for name in deadlines.OF_AN_ATTEMPT]
        if self._still_in(attempt, ending):
            self._begin(number, PreviousAttempt(shared, ended, proof=outcome.messages))

    def _announce(
        self,
        guilts: tuple[Guilt, ...],
        bans: tuple[Ban, ...],
        attempt: Attempt,
        past: Attempt | None,
        after: State | None,
        certificate: tuple[Signed, ...],
    ) -> None:
        """Each ban with its evidence (see `gather`)."""
        for guilt, ban in zip(guilts, bans, strict=True):
            evidence = gather(guilt, ban, attempt, past, after, certificate)
            told = Banned(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed, evidence)
            self._shared.out.append(told)

    def _still_in(self, attempt: Attempt, ending: Ending) -> bool:
        if self._shared.me in self._shared.state.roster.active:
            return True
        self._part(attempt, ending)
        client = self._outside(attempt.step, self._shared.state)
        if client is not None:
            client.ask()
        return False

    def _part(self, attempt: Attempt, ending: Ending) -> None:
        """We take no further part: nobody will be here to answer a laggard's SUSPECT with what ended the attempt, nor
        to show it in a dispute that others are about to begin, nor to say how that dispute ends. Our view is in time:
        whoever froze before now told us less than D ago."""
        shared, certificate = self._shared, ending.certificate
        others = tuple(peer for peer in attempt.roster.active if peer != shared.me)
        shared.out.append(Forward(others, certificate.messages))
        if shared.dispute is None or not shared.dispute.begun:
            if self._viewed != (attempt.step, attempt.number):  # else what is said is the view of an earlier life
                shared.out.append(Say(others, View(attempt.slot(Phase.VIEW), (), certificate.messages)))
            if not certificate.by_outcome:
                shared.out.append(Say(others, Outcome(attempt.slot(Phase.OUTCOME), (), certificate.value, ())))
        shared.out.append(CancelTimer(deadlines.FORWARD))

    # --- out of the roster, and back --------------------------------------------------------------------------

    def _is_out(self, attempt: Attempt, outcome: Certificate) -> bool:
        """Started again inside the dispute that removes us: what the step comes to is for those who are left, and they
        send us no tensors of it any more. True if we have gone to wait outside."""
        shared = self._shared
        if not shared.comes_back or all(removal.peer != shared.me for removal in outcome.removals):
            return False
        after = attempt.state.punished(attempt.step, attempt.number, outcome.removals, reform=False)
        client = self._outside(attempt.step, after)
        if client is not None:
            client.ask_soon()
        return True

    def _outside(self, step: int, state: State) -> StateSyncClient | None:
        """We are removed in a state: the way back that we take, or to the end of a run that is over; None: this is our
        end."""
        shared = self._shared
        reason = next(ban.reason for ban in reversed(state.bans) if ban.peer == shared.me)
        if shared.comes_back and shared.me in absent_of(state):
            shared.client = shared.new_client()
            shared.client.convinced = True
            shared.client.barred = None if shared.me in candidates_of(shared.settings, state) else reason
            return shared.client
        shared.stopped = True
        shared.out.append(Expelled(step, reason))
        return None

    def _cut_off(self) -> None:
        """A majority has ended the attempt before otherwise than its certificate says: the rest of the roster went on
        without us, from another state. We sign nothing more, and return as a peer that was removed, if we may."""
        shared = self._shared
        if not shared.comes_back:
            text = "was cut off: the others ended the step before otherwise; start this peer again to let it return"
            return shared.halt(shared.me, text)
        shared.client = shared.new_client()
        shared.client.convinced = True
        return shared.client.ask()

    def _leave(self) -> None:
        """We are out of the roster: nothing of the attempt under way concerns us any more."""
        shared = self._shared
        shared.round = shared.dispute = shared.past = None
        self._router.previous, self.gradients = PreviousAttempt(shared), Gradients()
        names = (*deadlines.OF_AN_ATTEMPT, deadlines.FORWARD, deadlines.BEFORE, deadlines.HELLO)
        shared.out += [CancelTimer(name) for name in names]

    def _rejoin(self, client: StateSyncClient) -> bool:
        """Go on where a quorum lets us in; true if anything happened."""
        shared, admission = self._shared, self._router.admission
        if shared.round is not None:
            self._leave()
            return True
        if shared.state is not client.state:
            shared.state = client.state
            admission.forget(shared.state.step)
        if client.ended is not None:
            shared.stopped = True
            shared.out.append(Expelled(client.state.step, client.ended))
        elif client.finished:
            shared.stopped = True
            shared.out.append(_finished(client.state))
        elif client.resumption is not None:
            before, shared.client = client.resumption, None
            assert before.past is not None
            shared.state, shared.certificate = before.state, before.certificate
            shared.past = self._recalled(before.past)
            admission.forget(shared.state.step)
            shared.let_in = shared.state.step, 0
            shared.missed.add(shared.let_in)
            shared.out.append(_returned(shared.state, before.past.number, shared.me))
            self._begin(0, PreviousAttempt(shared))
            return True
        return False


def _returned(state: State, attempt: int, peer: int) -> Returned:
    """A state lets a peer in: everybody in the roster before has the certificate that says so, and the peer itself."""
    return Returned(state.step - 1, attempt, peer, encode((state.summary, state.certificate)))


def _probations(attempt: Attempt, state: State) -> Iterator[Probed | Returned]:
    """What a committed step changed for peers that come back."""
    before, needed = dict(attempt.state.summary.probation), attempt.settings.probation
    for peer, since in state.summary.returned[len(attempt.state.summary.returned) :]:
        yield Probed(attempt.step, attempt.number, peer, needed, needed)
        yield _returned(state, attempt.number, peer)
        assert since == state.step
    for peer, correct in state.summary.probation:
        if before.get(peer) != correct:
            yield Probed(attempt.step, attempt.number, peer, correct, needed)


def _newcomers(attempt: Attempt, state: State) -> Iterator[Entered | Lapsed]:
    """Whom a committed step put on probation as a newcomer, and whose probation it ended without a place."""
    if attempt.settings.roster == "closed":
        return
    before, after = attempt.state.summary.register, state.summary.register
    known, now = ({each.peer: each for each in register.newcomers} for register in (before, after))
    for peer in sorted(known.keys() - now.keys()):
        reason = "probation" if after.bars(known[peer].key) else "silent"
        yield Lapsed(attempt.step, attempt.number, peer, reason)
    for peer in sorted(now.keys() - known.keys()):
        yield Entered(attempt.step, attempt.number, peer, now[peer].key.hex(), now[peer].sponsor)


def _finished(state: State) -> Finished:
    return Finished(state.step - 1, state.parameters_D, encode((state.summary, state.certificate)))


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
