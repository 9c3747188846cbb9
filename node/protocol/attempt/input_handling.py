"""What one attempt takes in from others: messages, suspicions, tensors, and what is missing when a wait is over."""

from __future__ import annotations

from torch import Tensor

from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.verdict import Judgement
from btard.node.protocol.api.events import BulkKey, BulkKind, Dropped, Forward, Output, Purpose, Say, SendBulk
from btard.node.protocol.api.notices import PhaseEntered, Suspected
from btard.node.protocol.attempt import timers
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.ending import Ending, Trigger
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.lateness import Patience, Watch
from btard.node.protocol.attempt.phases import PHASES, misfit
from btard.node.protocol.attempt.transcript import Added
from btard.node.protocol.attempt.transfers import Transfers
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.messages import Body, Close, Phase, Signed, Suspect
from btard.node.protocol.wire.validation import Counts


class InputHandling:
    """The first layer of a round (node/protocol/attempt/round.py): what it holds, and its inputs.

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
        self.phase = Phase.COMMIT
        self.trigger: Trigger | None = None
        self.ending: Ending | None = None
        self.verdict: tuple[Judgement, State] | None = None
        self.frozen = self.sealed = False
        """Frozen, this peer says no more in the attempt; sealed, its view is signed and only the union counts."""
        self._gradients, self._out, self.proofs, self._again = gradients, out, proofs, again
        self._sync_server = sync_server
        self._clock = timers.Timers(attempt.settings, len(attempt.roster.active), out, patience_s)
        self._patience = Patience(attempt, self._clock, watch or Watch())
        self._void: Judgement | None = None
        self._early: set[tuple[Phase, int]] = set()
        self._said = self._overdue = False
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
        alone = attempt.transcript.body(slot.phase, slot.sender) is None
        wrong = self._misfit(body) if alone and slot.phase in (self.phase, Phase.SUSPECT) else None
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
                waiting = tuple(attempt.transcript.suspects.get((slot.phase, slot.sender), ()))
                if waiting:
                    self._out.append(Forward(tuple(peer for peer in waiting if peer != attempt.me), (signed,)))
        self._compare()
        return None

    def _compare(self) -> None:
        split = self.attempt.transcript.split
        if split is not None:
            self._dispute("prefixes differ: not everybody has seen the same messages", *split)

    def _misfit(self, body: Body) -> str | None:
        trial = self.trial
        counts = Counts(len(trial.publications), len(trial.judging)) if trial is not None else Counts()
        return misfit(body, self.attempt, counts)

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

    def bulk_overdue(self) -> None:
        """The wait for bulk is over: say what is missing instead. After a new start our AGG may have been said already,
        with the parts that we have lost since: they are waited for as long as the others wait for us."""
        self._overdue = not (self._again and self.phase is Phase.AGG)

    def overdue(self) -> None:
        """The wait for messages is over: suspect whoever is missing (a local timeout never bans)."""
        attempt = self.attempt
        for peer in attempt.transcript.missing(self.phase):
            if peer != attempt.me:
                self._out.append(Suspected(attempt.step, attempt.number, self.phase.name, peer))
                self._out.append(Say(attempt.roster.active, Suspect(attempt.slot(Phase.SUSPECT), (), self.phase, peer)))
        self._clock.stall()

    def settle_cargo(self) -> None:
        """Place tensors whose digest is known by now.

        Nobody but its owner can send bytes over its line, and an honest owner sends what it has committed to: whoever
        sends others is not waited for. After a new start our AGG may stand already, and needs every part.
        """
        attempt = self.attempt
        for via, key in self.transfers.settle(self.trial):
            self._drop(via, "bulk_digest")
            sender = attempt.me if via is None else via
            if sender == key.owner and not (self._again and key.kind is BulkKind.PART):
                attempt.refuted.add(key)

    def _enter(self, phase: Phase) -> None:
        attempt = self.attempt
        self.phase, self._said, self._overdue = phase, False, False
        self._out.append(PhaseEntered(attempt.step, attempt.number, phase.name))
        trial = self.trial
        work = (0, self.attempt.burden)
        if trial is not None:
            work = len(trial.publications), len(trial.accused) + len(trial.disowned) + len(trial.returning)
        self._clock.enter(PHASES[phase].work, *work)
        self._patience.enter()

    def _drop(self, via: int | None, reason: str) -> None:
        self._out.append(Dropped(via, reason))

    def _dispute(self, cause: str, *messages: Signed) -> None:
        if self.trigger is None:
            self.trigger = Trigger(cause, messages)
