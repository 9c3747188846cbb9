"""A Peer: inputs in, outputs out, no clock, socket, thread or global randomness.

It greets, then carries one attempt after the other through its phases (node/protocol/round.py). n equal CLOSEs
commit the step, or void the attempt and start the next one at the same step with whoever is left. What goes wrong
between peers goes to a dispute (node/protocol/arbitration.py), whose OUTCOME does the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from torch import Tensor

from node.protocol import waits
from node.protocol.arbitration import Arbitration, outcome_timer
from node.protocol.attempt import Attempt
from node.protocol.candidate import ASK as ASK_STATE
from node.protocol.candidate import PULL as PULL_STATE
from node.protocol.candidate import Candidate
from node.protocol.charges import encode_equivocation
from node.protocol.deadlines import laggards_s, outcome_s
from node.protocol.dispute import round_timer
from node.protocol.events import (
    Banned,
    BulkArrived,
    BulkKey,
    BulkRequested,
    CancelTimer,
    Committed,
    DeadlinePassed,
    Dropped,
    Expelled,
    Finished,
    Forward,
    GradientReady,
    Halted,
    Input,
    LessonArrived,
    MessageArrived,
    Output,
    PhaseEntered,
    Probed,
    Purpose,
    RequestTranscript,
    Returned,
    Say,
    SetTimer,
    Start,
    TranscriptRequested,
    ViewArrived,
    Voided,
)
from node.protocol.evidence import gather
from node.protocol.gradients import Gradients
from node.protocol.greeting import Greeting
from node.protocol.lesson import Lesson
from node.protocol.mailroom import Mailroom, Place, remembering
from node.protocol.messages import Close, Endorsed, Hello, Outcome, Phase, Signed, View, decode_body, encode
from node.protocol.outcome import Ending
from node.protocol.porch import Porch
from node.protocol.probation import candidates_of
from node.protocol.randomness import share
from node.protocol.resumption import Past, Resumption
from node.protocol.roster import Roster
from node.protocol.round import Round
from node.protocol.settings import Settings, Tools
from node.protocol.state import State, genesis_randomness
from node.protocol.tribunal import Guilt, Judgement

_FromPeers = MessageArrived | ViewArrived | BulkRequested | TranscriptRequested
_FROM_PEERS = (MessageArrived, ViewArrived, BulkRequested, TranscriptRequested)
HELLO, FORWARD = "hello", "forward"
_RECALLS = 3
"""How often one peer may ask during one attempt of ours: it can be started again more than once within a deadline."""


class Peer:
    """One honest peer.

    Args:
        settings, tools: see there.
        roster: the genesis roster.
        me: this peer's genesis id.
        secret_seed: seed of its randomness shares, known to nobody else.
        parameters_D: initial parameters, float32.
    """

    def __init__(
        self, settings: Settings, tools: Tools, roster: Roster, me: int, secret_seed: bytes, parameters_D: Tensor
    ) -> None:
        tools = replace(tools, verify=remembering(tools.verify))
        self.settings, self.tools, self.me = settings, tools, me
        self._secret_seed = secret_seed
        optimiser_D = tools.optimiser.initial_state(settings.dimension)
        self.state = State(0, parameters_D, optimiser_D, genesis_randomness(settings.data_seed), roster)
        self.past: Attempt | None = None
        self.stopped = False
        self._round: Round | None = None
        self._previous: Round | None = None
        self._arbitration: Arbitration | None = None
        self._background: Arbitration | None = None
        self._mailroom = Mailroom(settings, tools, roster.keys)
        self._gradients = Gradients()
        self._greeting = Greeting(settings, roster)
        self._proofs: list[bytes] = []
        self._certificate: tuple[Signed, ...] = ()
        self._out: list[Output] = []
        self._porch = Porch(settings, tools, roster.keys, self._out)
        self._candidate: Candidate | None = None
        self.comes_back = False
        """Removed as gone, this peer asks to be let in again instead of ending."""
        self._resumed: Resumption | None = None
        self._recalled: Counter[int] = Counter()

    def restore(self, resumption: Resumption) -> None:
        """Before Start: go on where `snapshot` was taken, instead of greeting."""
        self._resumed, self.comes_back = resumption, True

    @property
    def resumable(self) -> bool:
        """There is an attempt to go on with: we are in the roster (one input may begin an attempt and end it)."""
        return self._round is not None and self.me in self.state.roster.active

    def snapshot(self) -> Resumption:
        """What `restore` needs, at the beginning of an attempt."""
        assert self._round is not None
        past = Past.of(self.past) if self.past is not None else None
        proofs = (*self._round.proofs, *self._proofs)
        return Resumption(self.state, self._round.attempt.number, past, self._certificate, proofs)

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way, None before all peers have greeted."""
        return self._round.attempt if self._round is not None else None

    def handle(self, event: Input) -> list[Output]:
        """Take one input; return what follows from it, in the order in which it has to happen."""
        if self.stopped:
            return []
        if isinstance(event, _FROM_PEERS) and not self._listens_to(event):
            return self._flush()
        match event:
            case Start():
                self._greet() if self._resumed is None else self._resume(self._resumed)
            case MessageArrived(via, signed):
                self._message(via, signed)
            case ViewArrived(via, endorsed):
                self._view(via, endorsed)
            case BulkArrived(via, key, values_P):
                self._bulk(via, key, values_P)
            case BulkRequested(via, key):
                self._request(via, key)
            case TranscriptRequested(via, step, attempt):
                self._recall(via, step, attempt)
            case LessonArrived(via, lesson):
                self._learn(via, lesson)
            case GradientReady():
                self._gradient(event)
            case DeadlinePassed(name):
                self._deadline(name)
        while self._advance():
            pass
        return self._flush()

    def _flush(self) -> list[Output]:
        result = self._out.copy()
        self._out.clear()
        return result

    def expects(self, via: int, key: BulkKey, size_bytes: int) -> bool:
        """For the transport: would a tensor of this key and size be kept? Asked before memory is spent on it."""
        if self._candidate is not None and self._candidate.expects(via, key, size_bytes // 4):
            return True
        return self._round is not None and self._round.cargo.expects(via, key, size_bytes // 4)

    def _listens_to(self, event: _FromPeers) -> bool:
        """A removed peer's line carries nothing that counts, but it could still make us work; one that was only gone
        may ask to come back."""
        via = event.via
        if via is None:
            return True
        heard = self._round is not None and self._porch.hears(event, self.state, self.past)
        known = {*self.state.roster.active, *(self._previous.attempt.roster.active if self._previous else ())}
        if via in known and (not heard or isinstance(event, TranscriptRequested)):
            return True
        if not heard:
            self._drop(via, "removed_line")
        return False

    # --- inputs -----------------------------------------------------------------------------------------------

    def _message(self, via: int | None, signed: Signed, nested: bool = False) -> None:
        """A signed message; `nested` ones come out of a view, where disputes' own messages have no business."""
        admitted = self._mailroom.admit(signed, self._round, self._previous, self._step)
        if isinstance(admitted, str):
            return self._drop(via, admitted)
        place, body = admitted
        if nested and isinstance(body, (Hello, View, Outcome)):
            return self._drop(via, "nested")
        if isinstance(body, Hello):
            return self._hello(via, body, signed)
        if place is Place.AHEAD:
            return None if self._mailroom.keep(body, signed) else self._drop(via, "too_many_ahead")
        if isinstance(body, View):
            return self._view(via, Endorsed(signed, ()))
        arbitration = self._arbitrate(place is Place.CURRENT)
        if isinstance(body, Outcome):
            return arbitration.take_outcome(body, signed)
        round_ = arbitration.round
        if round_.frozen:
            return self._drop(via, "frozen")
        round_.take(via, body, signed)
        return self._check_trigger(arbitration)

    def _check_trigger(self, arbitration: Arbitration) -> None:
        """A dispute begins. One about the attempt before suspends this one: its laggards cannot follow."""
        trigger = arbitration.round.trigger
        if trigger is None or arbitration.begun:
            return
        if arbitration is self._arbitration:
            # Whoever has not begun this attempt could not follow its dispute.
            self._forward_certificate()
        arbitration.begin(trigger)
        self._out += [CancelTimer(name) for name in waits.OF_AN_ATTEMPT]

    def _arbitrate(self, current: bool) -> Arbitration:
        """The arbitration of the current or the previous attempt, made on first use."""
        if current:
            assert self._round is not None
            self._arbitration = self._arbitration or Arbitration(self._round, self._out)
            return self._arbitration
        assert self._previous is not None
        self._background = self._background or Arbitration(self._previous, self._out)
        return self._background

    def _view(self, via: int | None, endorsed: Endorsed) -> None:
        """A view; before our own start of the dispute its contents are news like any other, and may be the start."""
        if any(known is not None and known.knows(endorsed.view) for known in (self._arbitration, self._background)):
            return self._drop(via, "duplicate")
        admitted = self._mailroom.admit(endorsed.view, self._round, self._previous, self._step)
        if isinstance(admitted, str):
            return self._drop(via, admitted)
        place, body = admitted
        if not isinstance(body, View):
            return self._drop(via, "unexpected_view")
        if place is Place.AHEAD:
            return None if self._mailroom.keep(body, endorsed.view) else self._drop(via, "too_many_ahead")
        arbitration = self._arbitrate(place is Place.CURRENT)
        if not arbitration.begun and arbitration.hears(body.slot.sender):
            for signed in body.messages:
                self._message(via, signed, nested=True)
                if arbitration.begun:
                    break
        refused = arbitration.take_view(endorsed)
        return self._drop(via, refused) if refused is not None else None

    def _hello(self, via: int | None, body: Hello, signed: Signed) -> None:
        taken = self._round is None and self._greeting.take(body, signed)
        return None if taken else self._drop(via, "late")

    @property
    def _step(self) -> int:
        """The step that we are in, or about to be let into."""
        waiting = self._candidate is not None and self._round is None
        return self._candidate.step if self._candidate is not None and waiting else self.state.step

    def _learn(self, via: int, lesson: Lesson) -> None:
        """Somebody tells us a later state: we may have been removed while we were away."""
        if self._candidate is None and (self.comes_back or self._round is None):
            self._candidate = self._new_candidate()
        if self._candidate is None:
            return self._drop(via, "unasked_lesson")
        return self._candidate.learn(via, lesson)

    def _new_candidate(self) -> Candidate:
        return Candidate(self.settings, self.tools, self.me, self._secret_seed, self.state, self._out)

    def _leave(self) -> None:
        """We are out of the roster: nothing of the attempt under way concerns us any more."""
        self._round = self._previous = self._arbitration = self._background = None
        self.past, self._gradients = None, Gradients()
        self._out += [CancelTimer(name) for name in (*waits.OF_AN_ATTEMPT, FORWARD, HELLO)]

    def _rejoin(self, candidate: Candidate) -> bool:
        """Go on where a quorum lets us in; true if anything happened."""
        if self._round is not None:
            self._leave()
            return True
        if self.state is not candidate.state:
            self.state = candidate.state
            self._mailroom.forget(self.state.step)
        if candidate.ended is not None:
            self.stopped = True
            self._out.append(Expelled(candidate.state.step, candidate.ended))
        elif candidate.resumption is not None:
            before, self._candidate = candidate.resumption, None
            assert before.past is not None
            self.state, self._certificate = before.state, before.certificate
            self.past = before.past.attempt(self.settings, self.tools, self.me, self._secret_seed)
            self._mailroom.forget(self.state.step)
            self._begin(0)
            return True
        return False

    def _bulk(self, via: int | None, key: BulkKey, values_P: Tensor) -> None:
        if self._candidate is not None and via is not None and self._candidate.expects(via, key, values_P.numel()):
            return self._candidate.take(via, key, values_P)
        if self._round is None:
            return self._drop(via, "unexpected_bulk")
        return self._round.take_bulk(via, key, values_P)

    def _request(self, via: int, key: BulkKey) -> None:
        for round_ in (self._round, self._previous):
            if round_ is not None and round_.holds(key):
                return round_.request(via, key)
        return self._drop(via, "unserved_request")

    def _recall(self, via: int, step: int, number: int) -> None:
        """A neighbour was started again: tell it what was said in its attempt, or what ended that one."""
        self._recalled[via] += 1
        if self._recalled[via] > _RECALLS:
            return self._drop(via, "recalled_too_often")
        held = (*(round_.attempt for round_ in (self._round, self._previous) if round_ is not None), self.past)
        for attempt in held:
            if attempt is not None and (attempt.step, attempt.number) == (step, number):
                self._out.append(Forward((via,), tuple(attempt.transcript.everything())))
                break
        if self._round is None or (step, number) != (self._round.attempt.step, self._round.attempt.number):
            self._out.append(Forward((via,), self._certificate))
        return None

    def _gradient(self, event: GradientReady) -> None:
        if self._candidate is not None and self._round is None:
            return self._candidate.computed(event)
        past = self.past.step if self.past is not None else None
        current = event.step == (self.state.step if event.purpose is Purpose.OWN else past)
        if not current or not self._gradients.take(event):
            return self._drop(None, "unwanted_gradient")
        if self._round is not None and event.purpose is Purpose.OWN:
            self._round.take_own()
        return None

    def _deadline(self, name: str) -> None:
        for arbitration in (self._arbitration, self._background):
            if arbitration is not None:
                step, number = arbitration.round.attempt.step, arbitration.round.attempt.number
                if name == round_timer(step, number):
                    return arbitration.round_over()
                if name == outcome_timer(step, number):
                    unheard = ", ".join(f"peer {peer}" for peer in arbitration.unheard) or "nobody"
                    problem = f"no majority of the roster agrees on how the dispute ended; missing: {unheard}"
                    return self._halt(None, problem)
        match name:
            case waits.LAGGARDS if self._round is not None:
                self._round.remind()
            case waits.BULK if self._round is not None:
                self._round.bulk_overdue()
            case waits.MESSAGES if self._round is not None:
                self._round.overdue()
            case waits.STALL:
                self._halt(None, f"peers {self._silent()} do not answer, and no quorum removes them")
            case _ if name in (PULL_STATE, ASK_STATE) and self._candidate is not None:
                given_up = self._candidate.overdue(name)
                return self._halt(None, given_up) if given_up is not None else None
            case _ if name == FORWARD:
                self._forward_certificate()
            case _ if name == HELLO:
                self._greeting.overdue()
                if not self._greeting.quorate:
                    missing = self._greeting.missing
                    self._halt(missing[0], f"no greeting from peers {list(missing)} within the deadline")
        return None

    def _silent(self) -> list[int]:
        return list(self._round.attempt.transcript.missing(self._round.phase)) if self._round is not None else []

    # --- the machine ------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        if self.stopped:
            return False
        if self._candidate is not None and self._candidate.convinced:
            return self._rejoin(self._candidate)
        if self._round is None:
            return self._meet()
        if self._resolve():
            return True
        if self._round.advance():
            return True
        if self._round.trigger is not None and not self._round.frozen:
            self._check_trigger(self._arbitrate(current=True))
            return True
        if self._round.ending is not None and not self._round.frozen:
            self._settle(self._round.ending)
            return True
        return False

    def _greet(self) -> None:
        self._out.append(PhaseEntered(0, 0, Phase.HELLO.name))
        self._out.append(SetTimer(HELLO, outcome_s(self.settings)))
        self._out.append(Say(self.state.roster.active, self._greeting.hello(self.me)))

    def _resume(self, before: Resumption) -> None:
        """Go on in the attempt in which we were stopped; the others may be in it, or one step ahead."""
        self.state, self._certificate, self._proofs = before.state, before.certificate, list(before.proofs)
        if before.past is not None:
            self.past = before.past.attempt(self.settings, self.tools, self.me, self._secret_seed)
        self._begin(before.number)
        others = tuple(peer for peer in self.state.roster.active if peer != self.me)
        self._out.append(RequestTranscript(others, self.state.step, before.number))

    def _meet(self) -> bool:
        """Start once everybody has said HELLO; up to f odd or silent peers may be lying, and hold nobody up."""
        greeting = self._greeting
        if not greeting.complete:
            return False
        if len(greeting.odd) > self.state.roster.faults:
            text = (
                "computes in another environment than this peer, so gradients would not repeat bit for bit; "
                "use the same hardware and versions, or set --recompute-tolerance"
            )
            self._halt(greeting.odd[0], text)
            return False
        self._out += [Dropped(peer, "odd_environment") for peer in greeting.odd]
        self.state = replace(self.state, fingerprints=greeting.fingerprints)
        self._certificate = tuple(greeting.messages())
        self._out.append(CancelTimer(HELLO))
        self._begin(0)
        return True

    def _begin(self, number: int) -> None:
        """Start an attempt at the current step; messages that came early are taken up."""
        own_share = share(self._secret_seed, self.state.step, number)
        attempt = Attempt(self.settings, self.tools, self.state, number, self.me, own_share)
        proofs, self._proofs = tuple(self._proofs[:4]), self._proofs[4:]
        self._previous, self._background = self._round, self._arbitration
        self._arbitration, self._recalled = None, Counter()
        again = self._resumed is not None and (self._resumed.state.step, self._resumed.number) == (
            self.state.step,
            number,
        )
        self._round = Round(attempt, self.past, self._gradients, self._out, proofs, again, self._porch)
        if self._previous is not None:
            # An honest peer that was eliminated may not know why: nobody tells it anything from here on.
            left = tuple(peer for peer in self._previous.attempt.roster.active if peer not in attempt.roster.active)
            if left:
                self._out.append(Forward(left, self._certificate))
        self._out.append(SetTimer(FORWARD, laggards_s(self.settings)))
        for signed in self._mailroom.release():
            self._message(None, signed)

    def _forward_certificate(self) -> None:
        """What ended the attempt before goes to peers of whom we have heard nothing since."""
        if self._round is not None and self._certificate:
            transcript = self._round.attempt.transcript
            quiet = tuple(peer for peer in transcript.missing(Phase.COMMIT) if peer != self.me)
            if quiet:
                self._out.append(Forward(quiet, self._certificate))

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
            return False
        judgement, state = verdict
        self._proofs += arbitration.proofs() if not outcome.removals else []
        # Who is banned by the value that stands is not removed a second time.
        more = tuple(guilt for guilt in arbitration.guilts() if guilt.peer in state.roster.active)
        removals = tuple(guilt.removal for guilt in more)
        state = state.punished(round_.attempt.step, round_.attempt.number, removals, reform=False)
        self._settle(Ending(judgement, state, messages), more)
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
            self._proofs += [encode_equivocation(*pair) for pair in attempt.transcript.conflicts.values()]
        if ending.judgement.void:
            self._void(attempt, ending, more)
        else:
            self._commit(attempt, ending, more)

    def _void(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...]) -> None:
        self._announce(attempt, ending, more, None)
        self.state = ending.state
        removed = tuple(peer for peer in attempt.roster.active if peer not in self.state.roster.active)
        self._out.append(Voided(attempt.step, attempt.number, removed))
        if self._still_in(attempt, ending):
            self._begin(attempt.number + 1)

    def _commit(self, attempt: Attempt, ending: Ending, more: tuple[Guilt, ...]) -> None:
        state = replace(ending.state, certificate=ending.certificate)
        self._announce(attempt, ending, more, state)
        self._out += [_committed(attempt, state), *_probations(attempt, state)]
        attempt.parts = {}
        self.past, self.state, self._gradients = attempt, state, Gradients()
        self._porch.teach(state, attempt)
        if not self._still_in(attempt, ending):
            return
        if state.step > self.settings.steps:
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
        if self.comes_back and self.me in candidates_of(self.settings, self.state):
            self._candidate = self._new_candidate()
            self._candidate.convinced = True
            self._candidate.ask()
            return False
        self.stopped = True
        reason = next(ban.reason for ban in reversed(self.state.bans) if ban.peer == self.me)
        self._out.append(Expelled(attempt.step, reason))
        return False

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

    def _drop(self, via: int | None, reason: str) -> None:
        self._out.append(Dropped(via, reason))

    def _halt(self, peer: int | None, problem: str) -> None:
        self.stopped = True
        phase = self._round.phase if self._round is not None else Phase.HELLO
        step, who = self.state.step, f"peer {peer} " if peer is not None else ""
        self._out.append(Halted(step, phase.name, peer, f"step {step}, phase {phase.name}: {who}{problem}"))


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
