"""One attempt carried through its phases (node/protocol/attempt/phases.py): what this peer says, waits for and
concludes.

Source: Gorbunov et al. 2021, Algorithms 1-7; PROTOCOL section 3 (phases, prefixes).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from btard.node.protocol.adjudication import complaints
from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.charges import accusation_of
from btard.node.protocol.adjudication.verdict import Judgement
from btard.node.protocol.api.events import BulkKind, Purpose, Say, SendBulk
from btard.node.protocol.attempt.compose import Knowledge
from btard.node.protocol.attempt.ending import Ending
from btard.node.protocol.attempt.holdings import LackingError, lacking, scarce, withheld
from btard.node.protocol.attempt.input_handling import InputHandling
from btard.node.protocol.attempt.phases import PHASES, following, message
from btard.node.protocol.state.state import State
from btard.node.protocol.state.transition import next_state, void_state
from btard.node.protocol.state_sync import probation
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Close, Phase, Signed, Void


class Round(InputHandling):
    """Drives one attempt; its owner reads `trigger` and `ending` after each call (arguments: see `InputHandling`)."""

    def advance(self) -> bool:
        """One move: say our message if we can, or finish the phase if everyone's message is here."""
        if self.trigger is not None or self.ending is not None or self.frozen:
            return False
        if not self._said:
            body = self._compose()
            if body is None:
                return False
            self._said = True
            self._patience.said(self.phase)
            self._out.append(Say(self.attempt.roster.active, body))
            self._publish()
            return True
        if self.attempt.transcript.missing(self.phase):
            return False
        return self._finish()

    def resume(self) -> None:
        """Deadlines of this phase start again (a dispute of the step before is over)."""
        self._clock.restart()

    def conclude(self, messages: Iterable[tuple[Body, Signed]]) -> tuple[Judgement, State] | None:
        """What this attempt comes to by the union of a dispute; None while bytes or gradients for it are not here.

        Only peers that lack others' messages have anything to catch up with: what they say meanwhile counts for
        nobody, but shows their state in the journal.
        """
        for body, signed in messages:
            self.attempt.transcript.add(body, signed)
        self.frozen, self.trigger, self._decided = False, None, True
        while self.phase is not Phase.CLOSE and self.advance():
            self.trigger = None
        if self.verdict is None and self.phase is Phase.CLOSE:
            self._close()
        self.frozen = True
        return self.verdict

    def _compose(self) -> Body | None:
        """Our message of the current phase, None while something it needs is not here."""
        if self.phase is Phase.CLOSE:
            return self._close()
        joins = (
            self._sync_server.joins(self.attempt)
            if self._sync_server is not None and self.phase is Phase.REPORT
            else ()
        )
        known = Knowledge(self.attempt, self.past, self.trial, self._gradients, self.proofs, self._overdue, joins,
                          self._again)  # fmt: skip
        return message(self.phase, known)

    def _close(self) -> Close | None:
        attempt = self.attempt
        judgement = self._void if self._void is not None else self._judge()
        if judgement is None:
            return None
        value: bytes | Void
        if judgement.void:
            state, value = void_state(attempt, judgement), Void(judgement.removals)
        else:
            review = probation.review(attempt, self.past, self._gradients.recomputed)
            if review is None:
                return None
            out = frozenset(guilt.peer for guilt in judgement.guilts)
            order = (*attempt.roster.active, *probation.eligible(attempt))
            published = self.trial.publications if self.trial is not None else ()
            judgement = judgement.joined((*complaints.broken(attempt, out, published), *review.guilts), False, order)
            lies = self.trial.lies(self._gradients.rechecks.faults) if self.trial is not None else ()
            state = next_state(attempt, judgement, lies, review, published)
            summary = state.summarise(attempt.transcript.digest)
            state, value = replace(state, summary=summary), summary.digest
        self.verdict = judgement, state
        return Close(attempt.slot(Phase.CLOSE), attempt.transcript.prefix, value)

    def _judge(self) -> Judgement | None:
        attempt, trial = self.attempt, self.trial
        if trial is None:
            return None
        few = scarce(attempt, Phase.HAVE, trial.publications)
        found, owed = self._gradients, withheld(attempt, few, "publication")
        return trial.verdict(found.recomputed, few, owed, found.rechecks.faults)

    def _finish(self) -> bool:
        """Everyone's message of the phase is here: fix its hash, do what follows, enter the next phase."""
        attempt, phase = self.attempt, self.phase
        if phase not in attempt.transcript.finished and self._unfit(phase):
            return False
        self._patience.complete(phase)
        if phase is Phase.CLOSE:
            self._end()
            return False
        if phase not in attempt.transcript.finished:
            attempt.transcript.finish(phase)
            self._compare()
            self._follow(phase)
            if self.trigger is not None:
                return False
        try:
            following_phase, self._void = following(attempt, phase, self.trial)
        except LackingError:
            return False
        if not self._admissible(phase, following_phase):
            return False
        self._enter(following_phase)
        self.settle_cargo()
        return True

    def _admissible(self, phase: Phase, upcoming: Phase) -> bool:
        """Messages that came before we knew what they must look like; a dispute that is decided has weighed them."""
        transcript = self.attempt.transcript
        if self._decided:
            return True
        for body in transcript.after(phase):
            wrong = self._misfit(body) if body.slot.phase is upcoming else None
            if wrong is not None:
                signed = transcript.signed(body.slot.phase)[body.slot.sender]
                self._dispute(f"peer {body.slot.sender}, {body.slot.phase.name}: {wrong}", signed)
                return False
        return True

    def _unfit(self, phase: Phase) -> bool:
        """Check a complete phase again: messages from peers ahead of us were taken before we could judge them, and
        a prefix may be too short to differ from any other (n CLOSEs would then be no certificate to a third party)."""
        attempt = self.attempt
        for peer, signed in attempt.transcript.signed(phase).items():
            body = attempt.transcript.body(phase, peer)
            wrong = None if body is None or body.prefix == attempt.transcript.prefix else "another prefix"
            if wrong is None and (phase, peer) in self._early:
                wrong = self._misfit(decode_body(signed.body))
            if wrong is not None:
                self._dispute(f"peer {peer}, {phase.name}: {wrong}", signed)
        return self.trigger is not None

    def _follow(self, phase: Phase) -> None:
        row = PHASES[phase]
        if row.act is not None:
            row.act(self)
        if row.items is not None:
            items = row.items.of(self.attempt, self.trial)
            for kind, item, holders in lacking(self.attempt, phase, row.items.kind, items):
                self._out += self.transfers.pull(kind, item, holders)

    # --- what follows a phase (`phases.Acts`) -------------------------------------------------------------------

    def fix_randomness(self) -> None:
        """After REVEAL."""
        self.attempt.fix_randomness()

    def send_parts(self) -> None:
        """After COMMIT; started again, we ask for those of others too."""
        attempt = self.attempt
        if attempt.own_D is not None and attempt.me in attempt.contributors:
            for part, aggregator in enumerate(attempt.roster.active):
                key = attempt.key(BulkKind.PART, attempt.me, part)
                self._out.append(SendBulk(aggregator, key, attempt.slice(attempt.own_D, part)))
        lost = self._again and attempt.me not in attempt.aggregates
        self._out += self.transfers.lost(BulkKind.PART, attempt.contributors if lost else ())

    def send_aggregate(self) -> None:
        """After AGG and AGG2: once, when our digest stands in one of them. Started again, we may lack what it is of,
        for good where a peer does not send its part a second time, and ask for those of others."""
        self._send_aggregate()
        self._out += self.transfers.lost(BulkKind.AGGREGATE, self.attempt.aggregators if self._again else ())

    def _send_aggregate(self) -> None:
        attempt = self.attempt
        if attempt.me not in attempt.aggregates:
            return
        complained = any(aggregator == attempt.me for aggregator, _ in attempt.complaints())
        if attempt.contributors and complained == (self.phase is Phase.AGG2):
            key = attempt.key(BulkKind.AGGREGATE, attempt.me, attempt.place)
            others = (peer for peer in attempt.roster.active if peer != attempt.me)
            self._out += [SendBulk(peer, key, attempt.aggregates[attempt.me]) for peer in others]

    def open_case(self) -> None:
        """After REPORT: charges, and the gradients that judging them needs."""
        self.trial = trial = Case(self.attempt, self.past)
        self._out += [accusation_of(self.attempt, charge) for charge in trial.charges]
        if self.past is not None:
            for peer in (*trial.accused, *trial.returning):
                self._out += self._gradients.want_past(Purpose.JUDGE, self.past, peer)
        for item in trial.disowned:
            self._out += self._gradients.rechecks.want(self.attempt, item)

    def _publish(self) -> None:
        """With our message, the bytes that we owe to all."""
        owed = PHASES[self.phase].bytes
        for key, values_P in owed(self.attempt, self.trial) if owed is not None else ():
            self._out += [SendBulk(peer, key, values_P) for peer in self.attempt.roster.active]

    def _end(self) -> None:
        """n CLOSEs: equal values end the attempt."""
        assert self.verdict is not None
        self.attempt.shaken = self.past is not None and self.past.disputed
        certificate = self.attempt.certificate()
        if certificate is not None:
            self.ending = Ending(*self.verdict, certificate)
            return None
        closes, signed = self.attempt.closed(), self.attempt.transcript.signed(Phase.CLOSE)
        ours = closes[self.attempt.me]
        odd = next(peer for peer, close in closes.items() if (close.value, close.prefix) != (ours.value, ours.prefix))
        return self._dispute("CLOSEs differ", signed[self.attempt.me], signed[odd])
