"""A Peer: inputs in, outputs out, no clock, socket, thread or global randomness.

It greets, then carries one attempt after the other through its phases (node/protocol/round.py): n equal CLOSEs
commit the step, or void the attempt and start the next one at the same step with whoever is left.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from node.errors import WireError
from node.protocol.attempt import Attempt
from node.protocol.deadlines import wait_s
from node.protocol.digest import digest
from node.protocol.events import (
    Banned,
    BulkArrived,
    BulkKey,
    CancelTimer,
    Committed,
    DeadlinePassed,
    Dropped,
    Expelled,
    Finished,
    GradientReady,
    Halted,
    Input,
    MessageArrived,
    Output,
    PhaseEntered,
    Purpose,
    Say,
    SetTimer,
    Start,
    Voided,
)
from node.protocol.evidence import gather
from node.protocol.gradients import Gradients
from node.protocol.messages import Hello, Phase, Signed, Slot, decode_body, encode, signing_bytes
from node.protocol.outcome import Ending, Problem
from node.protocol.randomness import share
from node.protocol.roster import Roster
from node.protocol.round import TIMER, Round
from node.protocol.settings import Settings, Tools
from node.protocol.state import State, genesis_randomness


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
        self.settings, self.tools, self.me = settings, tools, me
        self._secret_seed = secret_seed
        self._genesis_digest = roster.digest
        optimiser_D = tools.optimiser.initial_state(settings.dimension)
        self.state = State(0, parameters_D, optimiser_D, genesis_randomness(settings.data_seed), roster)
        self.past: Attempt | None = None
        self.stopped = False
        self._round: Round | None = None
        self._gradients = Gradients()
        self._hellos: dict[int, Hello] = {}
        self._ahead: dict[tuple[int, int, Phase, int], Signed] = {}
        self._out: list[Output] = []

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way, None before all peers have greeted."""
        return self._round.attempt if self._round is not None else None

    def handle(self, event: Input) -> list[Output]:
        """Take one input; return what follows from it, in the order in which it has to happen."""
        if self.stopped:
            return []
        match event:
            case Start():
                self._greet()
            case MessageArrived(via, signed):
                self._message(via, signed)
            case BulkArrived(via, key, values_P):
                self._bulk(via, key, values_P)
            case GradientReady():
                self._gradient(event)
            case DeadlinePassed():
                self._deadline()
        while self._advance():
            pass
        result = self._out.copy()
        self._out.clear()
        return result

    def expects(self, via: int, key: BulkKey, size_bytes: int) -> bool:
        """For the transport: would a tensor of this key and size be kept? Asked before memory is spent on it."""
        return self._round is not None and self._round.cargo.expects(via, key, size_bytes // 4)

    # --- inputs -----------------------------------------------------------------------------------------------

    def _message(self, via: int | None, signed: Signed) -> None:
        """Admit a message by its slot before its signature costs anything, and by its signature before anything else.

        Messages of the next attempt or the next step wait until we get there.
        """
        try:
            body = decode_body(signed.body)
        except WireError:
            return self._drop(via, "malformed")
        slot, keys = body.slot, self.state.roster.keys
        if slot.run != self.settings.run:
            return self._drop(via, "foreign_run")
        if not 0 <= slot.sender < len(keys):
            return self._drop(via, "unknown_sender")
        here, there = self._position(), (slot.step, slot.attempt)
        hello = isinstance(body, Hello)
        if not hello and there not in (here, (here[0], here[1] + 1), (here[0] + 1, 0)):
            return self._drop(via, "late" if there < here else "too_early")
        if not self.tools.verify(keys[slot.sender], signing_bytes(signed.body), signed.signature):
            return self._drop(via, "bad_signature")
        if isinstance(body, Hello):
            return self._hello(via, body)
        if there != here or self._round is None:
            # Not by the whole slot: a member could fill our memory with rosters that never were.
            self._ahead.setdefault((*there, slot.phase, slot.sender), signed)
            return None
        return self._round.take(via, body, signed)

    def _position(self) -> tuple[int, int]:
        return (self.state.step, self._round.attempt.number if self._round is not None else -1)

    def _hello(self, via: int | None, body: Hello) -> None:
        if self._round is not None or body.slot.roster != self._genesis_digest:
            return self._drop(via, "late")
        self._hellos.setdefault(body.slot.sender, body)
        return None

    def _bulk(self, via: int | None, key: BulkKey, values_P: Tensor) -> None:
        if self._round is None:
            return self._drop(via, "unexpected_bulk")
        return self._round.take_bulk(via, key, values_P)

    def _gradient(self, event: GradientReady) -> None:
        past = self.past.step if self.past is not None else None
        current = event.step == (self.state.step if event.purpose is Purpose.OWN else past)
        if not current or not self._gradients.take(event):
            return self._drop(None, "unwanted_gradient")
        if self._round is not None and event.purpose is Purpose.OWN:
            self._round.take_own()
        return None

    def _deadline(self) -> None:
        if self._round is not None:
            return self._round.overdue()
        missing = [peer for peer in self.state.roster.active if peer not in self._hellos]
        return self._halt(Problem(missing[0], Phase.HELLO, f"no greeting from peers {missing} within the deadline"))

    # --- the machine ------------------------------------------------------------------------------------------

    def _advance(self) -> bool:
        if self.stopped:
            return False
        if self._round is None:
            return self._meet()
        if self._round.advance():
            return True
        if self._round.problem is not None:
            self._halt(self._round.problem)
        elif self._round.ending is not None:
            self._settle(self._round.attempt, self._round.ending)
            return True
        return False

    def _greet(self) -> None:
        roster = self.state.roster
        slot = Slot(self.settings.run, self._genesis_digest, 0, 0, Phase.HELLO, self.me)
        self._out.append(PhaseEntered(0, 0, Phase.HELLO.name))
        self._out.append(SetTimer(TIMER, wait_s(Phase.HELLO, self.settings, len(roster.active), 0, 0)))
        self._out.append(Say(roster.active, Hello(slot, (), self.settings.run, self.settings.fingerprint)))

    def _meet(self) -> bool:
        """Start once everybody has said HELLO from an environment in which our gradients repeat."""
        roster = self.state.roster
        if len(self._hellos) < len(roster.active):
            return False
        prints = [self._hellos[peer].fingerprint for peer in roster.active]
        odd = [peer for peer, found in zip(roster.active, prints, strict=True) if found != self.settings.fingerprint]
        if odd and self.settings.recompute_tolerance == 0:
            text = (
                "computes in another environment than this peer, so gradients would not repeat bit for bit; "
                "use the same hardware and versions, or set --recompute-tolerance"
            )
            self._halt(Problem(odd[0], Phase.HELLO, text))
            return False
        self.state = replace(self.state, fingerprints=digest("fingerprints", *prints))
        self._begin(0)
        return True

    def _begin(self, number: int) -> None:
        """Start an attempt at the current step; messages that came early are taken up."""
        own_share = share(self._secret_seed, self.state.step, number)
        attempt = Attempt(self.settings, self.tools, self.state, number, self.me, own_share)
        self._round = Round(attempt, self.past, self._gradients, self._out)
        held, self._ahead = self._ahead, {}
        for signed in held.values():
            self._message(None, signed)

    def _settle(self, attempt: Attempt, ending: Ending) -> None:
        self._out.append(CancelTimer(TIMER))
        if ending.judgement.void:
            self._void(attempt, ending)
        else:
            self._commit(attempt, ending)

    def _void(self, attempt: Attempt, ending: Ending) -> None:
        self._announce(attempt, ending, None)
        self.state = ending.state
        removed = tuple(peer for peer in attempt.roster.active if peer not in self.state.roster.active)
        self._out.append(Voided(attempt.step, attempt.number, removed))
        if self._still_in(attempt):
            self._begin(attempt.number + 1)

    def _commit(self, attempt: Attempt, ending: Ending) -> None:
        state = replace(ending.state, certificate=ending.closes)
        self._announce(attempt, ending, state)
        self._out.append(_committed(attempt, state))
        attempt.parts = {}
        self.past, self.state, self._gradients = attempt, state, Gradients()
        if not self._still_in(attempt):
            return
        if state.step > self.settings.steps:
            self.stopped = True
            self._out.append(Finished(attempt.step, state.parameters_D))
        else:
            self._begin(0)

    def _announce(self, attempt: Attempt, ending: Ending, after: State | None) -> None:
        fresh = ending.state.bans[len(attempt.state.bans) :]
        for guilt, ban in zip(ending.judgement.guilts, fresh, strict=True):
            evidence = gather(guilt, ban, attempt, self.past, after)
            self._out.append(Banned(ban.step, ban.attempt, ban.peer, ban.reason, ban.accuser, ban.removed, evidence))

    def _still_in(self, attempt: Attempt) -> bool:
        if self.me in self.state.roster.active:
            return True
        self.stopped = True
        reason = next(ban.reason for ban in reversed(self.state.bans) if ban.peer == self.me)
        self._out.append(Expelled(attempt.step, reason))
        return False

    def _drop(self, via: int | None, reason: str) -> None:
        self._out.append(Dropped(via, reason))

    def _halt(self, problem: Problem) -> None:
        self.stopped = True
        step, who = self.state.step, f"peer {problem.peer} " if problem.peer is not None else ""
        self._out.append(CancelTimer(TIMER))
        text = f"step {step}, phase {problem.phase.name}: {who}{problem.text}"
        self._out.append(Halted(step, problem.phase.name, problem.peer, text))


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
    )
