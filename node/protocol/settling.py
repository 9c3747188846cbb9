"""How an attempt ends and the next one begins: committed or void, by CLOSEs or by the OUTCOME of a dispute."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from node.protocol import waits
from node.protocol.attempt import Attempt
from node.protocol.bounds import MAX_PROOFS
from node.protocol.candidate import Candidate
from node.protocol.charges import encode_equivocations
from node.protocol.deadlines import laggards_s
from node.protocol.disputing import Disputing
from node.protocol.encoding import decode_body, encode
from node.protocol.events import CancelTimer, Forward, Say, SetTimer
from node.protocol.evidence import gather
from node.protocol.gradients import Gradients
from node.protocol.indictment import evidence_in
from node.protocol.messages import Close, Outcome, Phase, View
from node.protocol.notices import Banned, Committed, Expelled, Finished, Probed, Returned, Voided
from node.protocol.outcome import Ending
from node.protocol.probation import candidates_of
from node.protocol.randomness import share
from node.protocol.round import Round
from node.protocol.seat import FORWARD
from node.protocol.state import State
from node.protocol.tribunal import Guilt, Judgement
from node.protocol.undo import undone


class Settling(Disputing):
    """The third layer of a peer: from one attempt to the next."""

    def _begin(self, number: int) -> None:
        """Start an attempt at the current step; messages that came early are taken up."""
        own_share = share(self._secret_seed, self.state.step, number)
        attempt = Attempt(self.settings, self.tools, self.state, number, self.me, own_share)
        proofs = self._take_proofs(attempt)
        self._previous, self._background = self._round, self._arbitration
        self._arbitration, self._recalled = None, Counter()
        again = self._resumed is not None and (self._resumed.state.step, self._resumed.number) == (
            self.state.step,
            number,
        )
        self._round = Round(attempt, self.past, self._gradients, self._out, proofs, again, self._porch, self._watch)
        if self._previous is not None:
            # An honest peer that was eliminated may not know why: nobody tells it anything from here on.
            left = tuple(peer for peer in self._previous.attempt.roster.active if peer not in attempt.roster.active)
            if left:
                self._out.append(Forward(left, self._certificate))
        self._out.append(SetTimer(FORWARD, laggards_s(attempt.settings)))
        for signed in self._mailroom.release():
            self._message(None, signed)

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
        background, arbitration = self._background, self._arbitration
        if background is not None and background.resolved is not None and not background.settled:
            background.settled = True
            self._proofs += background.proofs()
            if self._round is not None and not self._round.frozen:
                self._round.resume()
            return True
        if arbitration is None:
            return False
        arbitration.decide()
        if arbitration.resolved is None:
            return False
        outcome, messages = arbitration.resolved
        round_ = arbitration.round
        if outcome.value is None:
            state = round_.attempt.state.punished(
                round_.attempt.step, round_.attempt.number, outcome.removals, reform=False
            )
            self._settle(Ending(Judgement((), void=True), state, messages), arbitration.guilts())
            return True
        verdict = round_.conclude(arbitration.messages())
        if verdict is None:
            return self._is_out(round_.attempt, outcome)
        judgement, state = verdict
        self._proofs += arbitration.proofs() if not outcome.removals else []
        # Who is banned by the value that stands is not removed a second time.
        more = tuple(guilt for guilt in arbitration.guilts() if guilt.peer in state.roster.active)
        removals = tuple(guilt.removal for guilt in more)
        state = state.punished(round_.attempt.step, round_.attempt.number, removals, reform=False)
        self._settle(Ending(judgement, state, messages), more)
        return True

    def _is_out(self, attempt: Attempt, outcome: Outcome) -> bool:
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
        if self._arbitration is not None:
            # Its dispute may still come, in the background, and then has to let the next attempt go on.
            self._arbitration.settled = self._arbitration.resolved is not None
        self._out += [CancelTimer(name) for name in waits.OF_AN_ATTEMPT]
        self._certificate = ending.certificate
        if not more:
            self._proofs += encode_equivocations(attempt.transcript)
        if ending.judgement.void:
            self._void(attempt, ending, more)
        else:
            self._commit(attempt, ending, more)

    def _void(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...]) -> None:
        self._announce(attempt, ending, more, None)
        self.state = ending.state
        if self._round is not None:
            self._proofs = [*self._round.proofs, *self._proofs]  # no REPORT of this attempt counts
        removed = tuple(peer for peer in attempt.roster.active if peer not in self.state.roster.active)
        self._out.append(Voided(attempt.step, attempt.number, removed))
        if self._still_in(attempt, ending):
            self._begin(attempt.number + 1)

    def _commit(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...]) -> None:
        state = replace(ending.state, certificate=ending.certificate)
        self._announce(attempt, ending, more, state)
        self._out += [_committed(attempt, state), *_probations(attempt, state), *undone(attempt, state)]
        attempt.parts = {}
        self.past, self.state, self._gradients = attempt, state, Gradients()
        self._porch.teach(state, attempt)
        if not self._still_in(attempt, ending):
            return
        if state.step > self.settings.steps and not state.window.due:
            self._part(attempt, ending)
            self.stopped = True
            self._out.append(Finished(attempt.step, state.parameters_D))
        else:
            self._begin(0)

    def _announce(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...], after: State | None) -> None:
        fresh = ending.state.bans[len(attempt.state.bans) :]
        for guilt, ban in zip((*ending.judgement.guilts, *more), fresh, strict=True):
            evidence = gather(guilt, ban, attempt, self.past, after, ending.certificate)
            self._out.append(Banned(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed, evidence))

    def _still_in(self, attempt: Attempt, ending: Ending) -> bool:
        if self.me in self.state.roster.active:
            return True
        self._part(attempt, ending)
        candidate = self._outside(attempt.step, self.state)
        if candidate is not None:
            candidate.ask()
        return False

    def _outside(self, step: int, state: State) -> Candidate | None:
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
        self._out.append(Forward(others, ending.certificate))
        if self._arbitration is None or not self._arbitration.begun:
            self._out.append(Say(others, View(attempt.slot(Phase.VIEW), (), ending.certificate)))
            last = decode_body(ending.certificate[0].body)
            if isinstance(last, Close):
                self._out.append(Say(others, Outcome(attempt.slot(Phase.OUTCOME), (), last.value, ())))
        self._out.append(CancelTimer(FORWARD))

    def _new_candidate(self) -> Candidate:
        return Candidate(self.settings, self.tools, self.me, self._secret_seed, self.state, self._out)


def _probations(attempt: Attempt, state: State) -> Iterator[Probed | Returned]:
    """What a committed step changed for peers that come back."""
    before, needed = dict(attempt.state.probation), attempt.settings.probation
    evidence = encode((state.summary, state.certificate))
    for peer, since in state.returned[len(attempt.state.returned) :]:
        yield Probed(attempt.step, attempt.number, peer, needed, needed)
        yield Returned(attempt.step, attempt.number, peer, evidence)
        assert since == state.step
    for peer, correct in state.probation:
        if before.get(peer) != correct:
            yield Probed(attempt.step, attempt.number, peer, correct, needed)


def _committed(attempt: Attempt, state: State) -> Committed:
    assert state.summary is not None
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
