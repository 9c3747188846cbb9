"""One attempt carried through its phases: what this peer says, when a phase is complete, and what follows.

    COMMIT -> AGG -> REVEAL -> CHECKSUMS -> REPORT -> [PUBLISH -> HAVE] -> [JUDGE] -> CLOSE

Source: Gorbunov et al. 2021, Algorithms 1-7; the phases and prefixes are PROTOCOL.md's.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from node.protocol.attempt import Attempt, usable
from node.protocol.cargo import Cargo
from node.protocol.charges import accusation_of
from node.protocol.deadlines import wait_s
from node.protocol.events import (
    BulkKey,
    BulkKind,
    Dropped,
    Output,
    PhaseEntered,
    Purpose,
    Say,
    SendBulk,
    SetTimer,  # fmt: skip
)
from node.protocol.gradients import Gradients
from node.protocol.messages import Agg, Body, Close, Commit, Missing, Phase, Reveal, Signed, Void
from node.protocol.outcome import Ending, Problem
from node.protocol.randomness import Share, opens
from node.protocol.saying import message
from node.protocol.shapes import misfit
from node.protocol.state import State
from node.protocol.transcript import Added
from node.protocol.trial import Trial
from node.protocol.tribunal import Judgement
from node.protocol.update import next_state, void_state

TIMER = "phase"

_NO_PHASE = "sent a message of a phase that this attempt does not have"
_AFTER = {
    Phase.COMMIT: Phase.AGG,
    Phase.AGG: Phase.REVEAL,
    Phase.REVEAL: Phase.CHECKSUMS,
    Phase.CHECKSUMS: Phase.REPORT,
}


class Round:
    """Drives one attempt; its owner reads `out`, `problem` and `ending` after each call.

    Args:
        attempt: fresh.
        past: the committed attempt of the step before, None in step 0.
        gradients: of this step, kept from attempt to attempt.
        out: where outputs are appended.
    """

    def __init__(self, attempt: Attempt, past: Attempt | None, gradients: Gradients, out: list[Output]) -> None:
        self.attempt, self.past = attempt, past
        self.cargo = Cargo(attempt, past)
        self.trial: Trial | None = None
        self.phase = Phase.COMMIT
        self.problem: Problem | None = None
        self.ending: Ending | None = None
        self._gradients = gradients
        self._out = out
        self._said = False
        self._verdict: tuple[Judgement, State] | None = None
        attempt.own_D = gradients.own_D
        if attempt.me in attempt.contributors:
            out += gradients.want_own(attempt)
        for target in attempt.targets if past is not None else ():
            out += gradients.want_past(Purpose.VALIDATE, past, target) if past is not None else []
        self._enter(Phase.COMMIT)

    # --- inputs -----------------------------------------------------------------------------------------------

    def take(self, via: int | None, body: Body, signed: Signed) -> None:
        """A message of this attempt with a valid signature."""
        attempt, slot = self.attempt, body.slot
        if slot.sender not in attempt.roster.active:
            return self._drop(via, "not_active")
        if slot != attempt.slot(slot.phase, slot.sender):
            return self._drop(via, "wrong_slot")
        wrong = self._misfit(body)
        if wrong is not None:
            return self._fail(slot.sender, slot.phase, wrong)
        match attempt.transcript.add(body, signed):
            case Added.DUPLICATE:
                self._drop(via, "duplicate")
            case Added.CONFLICT:
                self._fail(slot.sender, slot.phase, "signed two different messages for one slot")
            case Added.NEW if slot.phase.value < self.phase.value:
                self._fail(slot.sender, slot.phase, _NO_PHASE)
        return None

    def _misfit(self, body: Body) -> str | None:
        trial = self.trial
        known = (len(trial.publications), len(trial.judging)) if trial is not None else (None, None)
        wrong = misfit(body, self.attempt, *known)
        return f"sent a message that fits no rule: {wrong}" if wrong is not None else None

    def take_bulk(self, via: int | None, key: BulkKey, values_P: Tensor) -> None:
        """A tensor from a neighbour (None: ourselves)."""
        if not self.cargo.expects(via, key, values_P.numel()):
            return self._drop(via, "unexpected_bulk")
        self.cargo.take(key, values_P)
        return self._settle_cargo()

    def take_own(self) -> None:
        """Our own gradient is ready."""
        self.attempt.own_D = self._gradients.own_D

    def overdue(self) -> None:
        """The phase's deadline passed: name what is missing (nobody is ever banned for a local timeout)."""
        late = self.attempt.transcript.missing(self.phase) if self._said else self._missing_bulk()
        what = "no message" if self._said else "no data"
        names = ", ".join(str(peer) for peer in late) or "this peer's own gradient"
        self.problem = Problem(late[0] if late else None, self.phase, f"{what} from peer {names} within the deadline")

    def _missing_bulk(self) -> tuple[int, ...]:
        attempt = self.attempt
        match self.phase:
            case Phase.AGG:
                return tuple(peer for peer in attempt.contributors if peer not in attempt.parts)
            case Phase.REVEAL:
                return tuple(peer for peer in attempt.roster.active if peer not in attempt.aggregates)
            case Phase.HAVE if self.trial is not None:
                return self.trial.missing()
            case _:
                return ()

    # --- the machine ------------------------------------------------------------------------------------------

    def advance(self) -> bool:
        """One move: say our message if we can, or finish the phase if everyone's message is here."""
        if self.problem is not None or self.ending is not None:
            return False
        if not self._said:
            body = self._compose()
            if body is None:
                return False
            self._said = True
            self._out.append(Say(self.attempt.roster.active, body))
            if self.phase is Phase.PUBLISH:
                self._publish()
            return True
        if self.attempt.transcript.missing(self.phase):
            return False
        return self._finish()

    def _enter(self, phase: Phase) -> None:
        self.phase, self._said = phase, False
        attempt = self.attempt
        trial = self.trial
        work = (len(trial.publications), len(trial.accused)) if trial is not None else (0, 0)
        self._out.append(PhaseEntered(attempt.step, attempt.number, phase.name))
        self._out.append(SetTimer(TIMER, wait_s(phase, attempt.settings, len(attempt.roster.active), *work)))

    def _compose(self) -> Body | None:
        """Our message of the current phase, None while something it needs is not here."""
        if self.phase is Phase.CLOSE and self.trial is not None:
            return self._close(self.trial)
        return message(self.phase, self.attempt, self.past, self.trial, self._gradients.recomputed)

    def _close(self, trial: Trial) -> Close | None:
        attempt = self.attempt
        judgement = trial.verdict(self._gradients.recomputed)
        if judgement is None:
            return None
        value: bytes | Void
        if judgement.void:
            state, value = void_state(attempt, judgement), Void(judgement.removals)
        else:
            state = next_state(attempt, judgement)
            summary = state.summarise(attempt.transcript.digest)
            state, value = replace(state, summary=summary), summary.digest
        self._verdict = judgement, state
        return Close(attempt.slot(Phase.CLOSE), attempt.transcript.prefix, value)

    def _finish(self) -> bool:
        """Everyone's message of the phase is here: fix its hash, do what follows, enter the next phase."""
        attempt, phase = self.attempt, self.phase
        odd = attempt.transcript.odd_prefixes(phase)
        if odd:
            self._fail(odd[0], phase, "saw other messages in an earlier phase than this peer (unequal prefixes)")
            return False
        if phase is Phase.CLOSE:
            self._end()
            return False
        attempt.transcript.finish(phase)
        self._follow(phase)
        if self.problem is not None:
            return False
        self._enter(self.trial.phase_after(phase) if self.trial is not None else _AFTER[phase])
        self._settle_cargo()
        return True

    def _follow(self, phase: Phase) -> None:
        match phase:
            case Phase.COMMIT:
                self._send_parts()
            case Phase.AGG:
                self._send_aggregate()
            case Phase.REVEAL:
                self._open_reveals()
            case Phase.REPORT:
                self._open_trial()
            case _:
                pass

    def _send_parts(self) -> None:
        attempt = self.attempt
        if attempt.own_D is not None and attempt.me in attempt.contributors:
            for part, aggregator in enumerate(attempt.roster.active):
                key = attempt.key(BulkKind.PART, attempt.me, part)
                self._out.append(SendBulk(aggregator, key, attempt.slice(attempt.own_D, part)))

    def _send_aggregate(self) -> None:
        attempt = self.attempt
        for peer, body in attempt.transcript.of(Agg, Phase.AGG).items():
            if isinstance(body.aggregate, Missing):
                return self._fail(peer, Phase.AGG, f"misses the parts of peers {list(body.aggregate.owners)}")
        if attempt.contributors:
            key = attempt.key(BulkKind.AGGREGATE, attempt.me, attempt.place)
            for peer in attempt.roster.active:
                if peer != attempt.me:
                    self._out.append(SendBulk(peer, key, attempt.aggregates[attempt.me]))
        return None

    def _open_reveals(self) -> None:
        attempt = self.attempt
        run, commits = attempt.settings.run, attempt.transcript.of(Commit, Phase.COMMIT)
        for peer, reveal in attempt.transcript.of(Reveal, Phase.REVEAL).items():
            opened = Share(reveal.x, reveal.salt)
            if not opens(commits[peer].randomness, run, attempt.step, attempt.number, peer, opened):
                return self._fail(peer, Phase.REVEAL, "revealed another value than it committed to")
            if not all(reveal.have):
                return self._fail(peer, Phase.REVEAL, "lacks an aggregate")
        return attempt.fix_randomness()

    def _open_trial(self) -> None:
        self.trial = trial = Trial(self.attempt, self.past)
        self._out += [accusation_of(self.attempt, charge) for charge in trial.charges]
        # Messages that came before we knew how many bits they must carry, and whether they have a phase at all.
        for body in self.attempt.transcript.after(Phase.REPORT):
            wrong = self._misfit(body) if body.slot.phase in trial.phases else _NO_PHASE
            if wrong is not None:
                return self._fail(body.slot.sender, body.slot.phase, wrong)
        for peer in trial.accused if self.past is not None else ():
            self._out += self._gradients.want_past(Purpose.JUDGE, self.past, peer) if self.past is not None else []
        return None

    def _publish(self) -> None:
        for key, values_P in self.trial.ours() if self.trial is not None else ():
            self._out += [SendBulk(peer, key, values_P) for peer in self.attempt.roster.active]

    def _settle_cargo(self) -> None:
        for key in self.cargo.settle(self.trial):
            self._drop(key.owner, "bulk_digest")
        if self.phase is Phase.AGG and not self._said:
            for owner, values_P in self.attempt.parts.items():
                if not usable(values_P):
                    return self._fail(owner, Phase.COMMIT, "committed to non-finite or enormous entries")
        return None

    def _end(self) -> None:
        """n CLOSEs: equal values end the attempt."""
        assert self._verdict is not None
        closes = self.attempt.closed()
        ours = closes[self.attempt.me].value
        for peer, close in closes.items():
            if close.value != ours:
                return self._fail(peer, Phase.CLOSE, "ended the step in another state than this peer")
        judgement, state = self._verdict
        self.ending = Ending(judgement, state, tuple(self.attempt.transcript.signed(Phase.CLOSE).values()))
        return None

    def _drop(self, via: int | None, reason: str) -> None:
        self._out.append(Dropped(via, reason))

    def _fail(self, peer: int, phase: Phase, text: str) -> None:
        if self.problem is None:
            self.problem = Problem(peer, phase, text)
