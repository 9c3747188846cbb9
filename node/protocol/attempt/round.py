"""One attempt carried through its phases (node/protocol/attempt/phases.py): what a peer takes in, says and concludes.

Source: Gorbunov et al. 2021, Algorithms 1-7; PROTOCOL section 3 (phases, prefixes).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from btard.node.protocol.adjudication import complaints
from btard.node.protocol.adjudication.charges import Publication, accusation_of
from btard.node.protocol.adjudication.judging import Case, Counts, Judgement
from btard.node.protocol.api import (
    BulkKey,
    BulkKind,
    Dropped,
    Forward,
    Output,
    PhaseEntered,
    Purpose,
    Say,
    SendBulk,
    Suspected,
)
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.attempt import Added, Attempt, Trigger
from btard.node.protocol.attempt.deadlines import Patience, Watch
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.phases import PHASES, Knowledge, following, message, misfit
from btard.node.protocol.attempt.transfers import LackingError, Transfers, lacking, scarce, withheld
from btard.node.protocol.state.state import State
from btard.node.protocol.state.transition import next_state, void_state
from btard.node.protocol.state_sync import probation
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.messages import Body, Close, Message, Phase, Signed, Suspect, Void


@dataclass(frozen=True, slots=True)
class Ending:
    """What was decided, the state that follows, and the certificate that says so."""

    judgement: Judgement
    state: State
    certificate: Certificate


def value_of(judgement: Judgement, state: State) -> bytes | Void:
    """What a CLOSE says of an attempt that comes to this."""
    return Void(judgement.removals) if judgement.void else state.summary.digest


class Round:
    """One attempt, as one peer carries it through; its owner reads `trigger` and `ending` after each call.

    Args:
        attempt: fresh.
        past: the committed attempt of the step before, None in step 0.
        gradients: of this step, kept from attempt to attempt.
        out: where outputs are appended.
        proofs: encoded equivocations of earlier attempts, for our REPORT.
        sync_server: holds the JOINs of the step before, for our REPORT.
        again: we were started again in the midst of this attempt, and ask for the tensors that we have lost.
        patience_s: how long others may be in coming to this attempt, beyond what its first deadline allows for.
        watch: what the driver says of the time.
    """

    def __init__(
        self, attempt: Attempt, past: Attempt | None, gradients: Gradients, out: list[Output],
        proofs: tuple[bytes, ...] = (), again: bool = False, sync_server: StateSyncServer | None = None,
        patience_s: float = 0.0, watch: Watch | None = None,
    ) -> None:  # fmt: skip
        self.attempt, self.past = attempt, past
        self.transfers = Transfers(attempt, past)
        self.trial: Case | None = None
        self._counts = Counts()
        self.phase = Phase.COMMIT
        self.trigger: Trigger | None = None
        self.ending: Ending | None = None
        self.verdict: tuple[Judgement, State] | None = None
        self.frozen = self.sealed = False
        """Frozen, this peer says no more in the attempt; sealed, its view is signed and only the union counts."""
        self.told = False
        """A CLOSE has come by another than its sender, so the attempt may have ended there."""
        self._gradients, self._out, self.proofs, self._again = gradients, out, proofs, again
        self._sync_server = sync_server
        self._clock = deadlines.Timers(attempt.settings, len(attempt.roster.active), out, patience_s)
        self._patience = Patience(attempt, self._clock, watch or Watch())
        self._void: Judgement | None = None
        self._early: set[tuple[Phase, int]] = set()
        self._said = self._overdue = self._waited = False
        self._decided = False
        """A dispute has decided what this attempt comes to."""

    def begin(self) -> None:
        """Ask for the gradients that this attempt needs of us, and enter its first phase."""
        attempt, past, gradients = self.attempt, self.past, self._gradients
        attempt.own_D = gradients.own_D
        if attempt.me in attempt.contributors:
            self._out += gradients.want_own(attempt)
        if past is not None:
            for target in attempt.targets:
                self._out += gradients.want_past(Purpose.VALIDATE, past, target)
        gradients.rechecks.forget()
        for item in attempt.shares.get(attempt.me, ()):
            self._out += gradients.rechecks.want(attempt, item)
        self._enter(Phase.COMMIT)

    # --- inputs -----------------------------------------------------------------------------------------------

    def take(self, body: Body, signed: Signed) -> str | None:
        """A message of this attempt with a valid signature from an active sender; returns why it is refused without any
        effect, None if it has one.

        What starts a dispute here has to be a contradiction in the eyes of those who have ended the attempt already,
        and so a proof (`charges.contradict`): else its sender could start one in every step. A message of a phase that
        we have not reached is judged when we enter it; one of a phase that this attempt does not have never is.
        """
        attempt, slot = self.attempt, body.slot
        if self.sealed and not isinstance(body, Close):
            return "frozen"
        if (slot.phase, slot.sender) in attempt.transcript.conflicts:
            return "duplicate"  # a third version proves no more than the second
        judged = slot.phase is self.phase or slot.phase is Phase.SUSPECT
        alone = judged and attempt.transcript.body(slot.phase, slot.sender) is None
        wrong = misfit(body, attempt, self._counts) if alone else None
        if wrong is not None and isinstance(body, Suspect):
            return "malformed"
        if wrong is not None:
            attempt.transcript.spoke.setdefault(slot.sender, signed)
            if self.frozen:
                return "malformed"  # one is reason enough
            self._dispute(f"peer {slot.sender}, {slot.phase.name}: {wrong}", signed)
            return None
        match attempt.transcript.add(body, signed):
            case Added.DUPLICATE:
                return "duplicate"
            case Added.CONFLICT:
                pair = attempt.transcript.conflicts[(slot.phase, slot.sender)]
                self._dispute(f"peer {slot.sender} equivocates in {slot.phase.name}", *pair)
                return None
            case Added.NEW if isinstance(body, Suspect):
                self._suspected(body)
                return None
            case Added.NEW:
                if slot.phase is self.phase:
                    self._patience.heard(slot.sender, slot.phase)
                else:
                    self._early.add((slot.phase, slot.sender))
                if attempt.transcript.suspects:
                    waiting = tuple(attempt.transcript.suspects.get((slot.phase, slot.sender), ()))
                    if waiting:
                        self._out.append(Forward(tuple(peer for peer in waiting if peer != attempt.me), (signed,)))
        if attempt.transcript.split is not None:
            self._compare()
        return None

    def _compare(self) -> None:
        split = self.attempt.transcript.split
        if split is not None:
            self._dispute("prefixes differ: not everybody has seen the same messages", *split)

    def _suspected(self, body: Suspect) -> None:
        """Answer a suspicion with the message if we hold it; f + 1 suspicions of one slot start a dispute."""
        attempt = self.attempt
        held = attempt.transcript.signed(body.named).get(body.peer)
        if held is not None and body.slot.sender != attempt.me:
            self._out.append(Forward((body.slot.sender,), (held,)))
        by = attempt.transcript.suspects[(body.named, body.peer)]
        if len(by) > attempt.roster.faults:
            self._dispute(f"peer {body.peer} is silent in {body.named.name}", *by.values())

    def take_bulk(self, via: int | None, key: BulkKey, values_P: Tensor) -> None:
        """A tensor from a neighbour (None: ourselves)."""
        if not self.transfers.expects(via, key, values_P.numel()):
            return self._drop(via, "unexpected_bulk")
        self.transfers.take(via, key, values_P)
        self._patience.got(key.owner)
        return self.settle_cargo()

    def holds(self, key: BulkKey) -> bool:
        """True if we could send a tensor of this key again."""
        return self.transfers.find(key) is not None

    def request(self, via: int, key: BulkKey) -> None:
        """A neighbour asks for a tensor again."""
        values_P = self.transfers.serve(via, key)
        if values_P is None:
            return self._drop(via, "unserved_request")
        self._out.append(SendBulk(via, key, values_P))
        return None

    def take_own(self) -> None:
        """Our own gradient is ready."""
        self.attempt.own_D = self._gradients.own_D
        self._patience.computed()

    def remind(self) -> None:
        """Whoever says nothing in this phase may lack what ended the one before: a faulty peer can have sent its last
        message of it to us alone."""
        transcript = self.attempt.transcript
        quiet = tuple(peer for peer in transcript.missing(self.phase) if peer != self.attempt.me)
        if quiet and transcript.finished and not self.frozen:
            self._out.append(Forward(quiet, tuple(transcript.signed(transcript.finished[-1]).values())))

    def bulk_overdue(self, together: bool) -> None:
        """The wait for bulk is over: say what is missing instead. After a new start parts may be waited for as long as
        the others wait for us: our AGG may stand, with those that we have lost since. Where all were started again
        (`together`), an owner may be late, and complaints of all others would remove it: it has some time more. Not as
        much as we have: askers may lie, and others who were not away would suspect us before we complain."""
        waits = self._again and self.phase is Phase.AGG and not self._said
        if waits and together and not self._bound and not self._waited:
            self._waited = True
            return self._clock.wait_on()
        self._overdue = not (waits and self._bound)
        return self._clock.complained() if waits and self._waited else None

    @property
    def _bound(self) -> bool:
        """Our AGG stands: it needs the parts that it rests on."""
        return self.attempt.transcript.body(Phase.AGG, self.attempt.me) is not None

    def overdue(self) -> None:
        """The wait for messages is over: suspect whoever is missing (a local timeout never bans)."""
        attempt = self.attempt
        for peer in attempt.transcript.missing(self.phase):
            if peer != attempt.me:
                self._out.append(Suspected(attempt.step, attempt.number, self.phase.name, peer))
                self._out.append(Say(attempt.roster.active, Suspect(attempt.slot(Phase.SUSPECT), (), self.phase, peer)))
        return self._clock.stall()

    def settle_cargo(self) -> None:
        """Place tensors whose digest is known by now.

        Nobody but its owner can send bytes over its line, and an honest owner sends what it has committed to: whoever
        sends others is not waited for. Started again, our AGG may stand already: it needs the part that it rests on.
        """
        attempt = self.attempt
        bound = self._again and self._bound
        for via, key in self.transfers.settle(self.trial):
            self._drop(via, "bulk_digest")
            sender = attempt.me if via is None else via
            if sender == key.owner and not (key.kind is BulkKind.PART and bound):
                attempt.refuted.add(key)

    def _enter(self, phase: Phase) -> None:
        attempt = self.attempt
        self.phase, self._said, self._overdue, self._waited = phase, False, False, False
        self._out.append(PhaseEntered(attempt.step, attempt.number, phase.name))
        trial = self.trial
        work = (0, attempt.burden)
        if trial is not None:
            work = len(trial.publications), len(trial.accused) + len(trial.disowned) + len(trial.returning)
        self._clock.enter(PHASES[phase].work, *work)
        self._patience.enter()

    def _drop(self, via: int | None, reason: str) -> None:
        self._out.append(Dropped(via, reason))

    def _dispute(self, cause: str, *messages: Signed) -> None:
        if self.trigger is None:
            self.trigger = Trigger(cause, messages)

    # --- moves ------------------------------------------------------------------------------------------------

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
        return self.attempt.transcript.complete(self.phase) and self._finish()

    def resume(self) -> None:
        """Deadlines of this phase start again (a dispute of the step before is over)."""
        self._clock.restart()

    def conclude(self, messages: Iterable[tuple[Body, Signed]], certified: bool) -> tuple[Judgement, State] | None:
        """What this attempt comes to by the union of a dispute; None while bytes or gradients for it are not here.

        We may have signed a CLOSE ourselves: then what we held of two versions is what it covers. Else the union's
        counts, whatever its sender has shown to us.

        Only peers that lack others' messages have anything to catch up with: what they say meanwhile counts for
        nobody, but shows their state in the journal.
        """
        for body, signed in messages:
            (self.attempt.transcript.add if certified else self.attempt.transcript.adopt)(body, signed)
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
        if judgement.void:
            state = void_state(attempt, judgement)
        else:
            review = probation.review(attempt, self.past, self._gradients.recomputed)
            if review is None:
                return None
            out = frozenset(guilt.peer for guilt in judgement.guilts)
            order = (*attempt.roster.active, *probation.eligible(attempt))
            charged = complaints.after(attempt, self.trial)
            judgement = judgement.joined((*complaints.broken(attempt, out, charged), *review.guilts), False, order)
            lies = self.trial.lies(self._gradients.rechecks.faults) if self.trial is not None else ()
            state = next_state(attempt, judgement, lies, review, charged)
        self.verdict = judgement, state
        return Close(attempt.slot(Phase.CLOSE), attempt.transcript.prefix, value_of(judgement, state))

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
        if not self._admissible(following_phase):
            return False
        self._enter(following_phase)
        self.settle_cargo()
        return True

    def _admissible(self, upcoming: Phase) -> bool:
        """Messages that came before we knew what they must look like; a dispute that is decided has weighed them."""
        attempt, transcript = self.attempt, self.attempt.transcript
        if self._decided:
            return True
        for body in transcript.of(Message, upcoming).values():
            wrong = misfit(body, attempt, self._counts)
            if wrong is not None:
                signed = transcript.signed(body.slot.phase)[body.slot.sender]
                self._dispute(f"peer {body.slot.sender}, {body.slot.phase.name}: {wrong}", signed)
                return False
        return True

    def _unfit(self, phase: Phase) -> bool:
        """Check a complete phase again: messages from peers ahead of us were taken before we could judge them, and
        a prefix may be too short to differ from any other (n CLOSEs would then be no certificate to a third party)."""
        attempt = self.attempt
        for peer, body in attempt.transcript.of(Message, phase).items():
            wrong = None if body.prefix == attempt.transcript.prefix else "another prefix"
            if wrong is None and (phase, peer) in self._early:
                wrong = misfit(body, attempt, self._counts)
            if wrong is not None:
                self._dispute(f"peer {peer}, {phase.name}: {wrong}", attempt.transcript.signed(phase)[peer])
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
        """After COMMIT; started again, we ask for those of others too. Where our AGG stands, we ask all for what it is
        of: an owner may not send its part a second time."""
        attempt = self.attempt
        if attempt.own_D is not None and attempt.me in attempt.contributors:
            for part, aggregator in enumerate(attempt.roster.active):
                key = attempt.key(BulkKind.PART, attempt.me, part)
                self._out.append(SendBulk(aggregator, key, attempt.slice(attempt.own_D, part)))
        lost = self._again and attempt.me not in attempt.aggregates
        self._out += self.transfers.lost(BulkKind.PART, attempt.contributors if lost else ())
        if lost and self._bound:
            own = Publication(attempt.step, attempt.number, attempt.me, attempt.place)
            self._out += self.transfers.pull(BulkKind.AGGREGATE, own, attempt.roster.active)

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
        self._counts = trial.counts
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
