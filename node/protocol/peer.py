"""A Peer: inputs in, outputs out, no clock, socket, thread or global randomness.

It greets, then carries one attempt after the other through its phases (node/protocol/attempt/round.py). n equal CLOSEs
commit the step, or void the attempt and start the next one at the same step with whoever is left. What goes wrong
between peers goes to a dispute (node/protocol/disputes/dispute.py), whose OUTCOME does the same.
"""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from btard.node.protocol.api import (
    Applied,
    BulkArrived,
    BulkKey,
    BulkRequested,
    DeadlinePassed,
    GradientReady,
    Input,
    MessageArrived,
    Output,
    PhaseEntered,
    Purpose,
    RequestTranscript,
    Say,
    SetTimer,
    SnapshotArrived,
    Start,
    TimePassed,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import Watch, laggards_s, outcome_s
from btard.node.protocol.attempt.handshake import Greeting
from btard.node.protocol.attempt.lifecycle import AttemptLifecycle
from btard.node.protocol.disputes.dispute import outcome_timer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.peer_state import PeerState
from btard.node.protocol.roster import Roster
from btard.node.protocol.router import DisputeRouter
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import Resumption, State
from btard.node.protocol.state_sync import client as state_sync
from btard.node.protocol.state_sync.messages import Snapshot
from btard.node.protocol.state_sync.probation import nearly_in
from btard.node.protocol.state_sync.server import StateSyncServer
from btard.node.protocol.wire.messages import Phase

_FromPeers = MessageArrived | ViewArrived | BulkRequested | TranscriptRequested
_FROM_PEERS = (MessageArrived, ViewArrived, BulkRequested, TranscriptRequested)


class Peer:
    """One honest peer, as a driver sees it.

    Its parts call each other from left to right: peer, lifecycle, router, previous attempt, and all of them what they
    share.

    Args:
        settings, tools: see there.
        roster: the genesis roster.
        me: this peer's id; one beyond the founders' is a newcomer's, which begins outside the roster.
        secret_seed: seed of its randomness shares, known to nobody else.
        parameters_D: initial parameters, float32.
    """

    def __init__(
        self, settings: Settings, tools: Tools, roster: Roster, me: int, secret_seed: bytes, parameters_D: Tensor
    ) -> None:
        self.shared = PeerState(settings, tools, roster, me, secret_seed, parameters_D)
        self.greeting, self._watch = Greeting(settings, roster), Watch()
        self.router = DisputeRouter(self.shared, self.greeting)
        self.sync_server = StateSyncServer(settings, self.shared.tools, self.shared.out)
        self.lifecycle = AttemptLifecycle(self.shared, self.router, self.greeting, self.sync_server, self._watch)
        self.resumption: Resumption | None = None
        """Where to go on at Start; None: with the greeting."""
        self._away_s = 0.0
        self.stays = False
        """Having finished, it answers those that were started again in the last attempt, or were gone by then."""
        self.admitted = False
        """The last input was a signed message or view whose signature and place held, and which has an effect: only
        such ones are worth remembering."""

    # --- what it holds ----------------------------------------------------------------------------------------

    @property
    def me(self) -> int:
        """Its genesis id."""
        return self.shared.me

    @property
    def state(self) -> State:
        """The agreed state."""
        return self.shared.state

    @property
    def past(self) -> Attempt | None:
        """The attempt that the state was committed by; None in step 0."""
        return self.shared.past

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way; None before all peers have greeted."""
        return self.shared.round.attempt if self.shared.round is not None else None

    @property
    def stopped(self) -> bool:
        """It has finished, halted or been expelled: no input has an effect."""
        return self.shared.stopped

    @property
    def comes_back(self) -> bool:
        """Removed as gone, it asks to be let in again instead of ending."""
        return self.shared.comes_back

    @comes_back.setter
    def comes_back(self, wanted: bool) -> None:
        self.shared.comes_back = wanted

    def restore(self, resumption: Resumption, away_s: float = 0.0) -> None:
        """Before Start: go on where `snapshot` was taken, instead of greeting.

        Args:
            resumption: the snapshot.
            away_s: how long ago it was taken: what others wait for in the attempt before has gone on meanwhile.
        """
        self.resumption, self._away_s, self.shared.comes_back = resumption, away_s, True

    @property
    def resumable(self) -> bool:
        """There is an attempt to go on with: we are in the roster (one input may begin an attempt and end it)."""
        return self.shared.round is not None and self.shared.me in self.shared.state.roster.active

    def snapshot(self) -> Resumption:
        """What `restore` needs, at the beginning of an attempt."""
        shared, previous = self.shared, self.router.previous.round
        assert shared.round is not None
        past = shared.past.record() if shared.past is not None else None
        proofs = (*shared.round.proofs, *shared.proofs)
        before = previous.attempt.record() if previous is not None and previous.attempt is not shared.past else None
        return Resumption(shared.state, shared.round.attempt.number, past, shared.certificate, proofs, before)

    def holdings(self) -> tuple[int, int, dict[BulkKey, Tensor], dict[BulkKey, bytes]] | None:
        """Step and number of the attempt under way, the tensors that its end depends on, and of the aggregates among
        them the digests that their owners have signed; None if there is none."""
        round_ = self.shared.round
        return (round_.attempt.step, round_.attempt.number, *round_.transfers.held()) if round_ is not None else None

    def expects(self, via: int, key: BulkKey, size_bytes: int) -> bool:
        """For the transport: would a tensor of this key and size be kept? Asked before memory is spent on it."""
        client, round_ = self.shared.client, self.shared.round
        entries = size_bytes // self.shared.settings.precision.of(key.kind).item_bytes
        if client is not None and client.expects(via, key, entries):
            return True
        return round_ is not None and round_.transfers.expects(via, key, entries)

    # --- inputs -----------------------------------------------------------------------------------------------

    def handle(self, event: Input) -> list[Output]:
        """Take one input; return what follows from it, in the order in which it has to happen."""
        if isinstance(event, TimePassed):
            self._watch.now_s = event.now_s
            return []
        self.admitted = False
        if self.shared.stopped:
            return self._after_the_end(event) if self.stays else []
        if isinstance(event, _FROM_PEERS) and not self._listens_to(event):
            self.admitted = isinstance(event, MessageArrived) and self.sync_server.holds(event.signed)
            return self._flush()
        match event:
            case MessageArrived(via, signed):
                refused = self.router.message(via, signed)
                self.admitted = refused is None
                if refused is not None:
                    self.shared.drop(via, refused)
            case ViewArrived(via, endorsed):
                refused = self.router.view(via, endorsed)
                self.admitted = refused is None
                if refused is not None:
                    self.shared.drop(via, refused)
            case BulkArrived(via, key, values_P):
                self._bulk(via, key, values_P)
            case BulkRequested(via, key):
                self._request(via, key)
            case TranscriptRequested(via, step, attempt):
                self.router.recall(via, step, attempt)
            case SnapshotArrived(via, snapshot):
                self._learn(via, snapshot)
            case GradientReady():
                self._gradient(event)
            case Applied(application):
                refused = self.sync_server.apply(application, self.shared.state)
                if refused is not None:
                    self.shared.drop(None, refused)
            case DeadlinePassed(name):
                self._deadline(name)
            case Start():
                self._start()
        while self.lifecycle.advance():
            pass
        return self._flush() if self.shared.out else []

    def _after_the_end(self, event: Input) -> list[Output]:
        """What was said in the last attempt, and the bytes that its end rests on, for whoever was away at the end; the
        final state for whoever was gone."""
        active = self.shared.state.roster.active
        match event:
            case TranscriptRequested(via, step, attempt) if via in active:
                self.router.recall(via, step, attempt)
            case BulkRequested(via, key) if via in active:
                self._request(via, key)
            case _:
                self.sync_server.hears(event, self.shared.state, self.shared.past)
        return self._flush()

    def _flush(self) -> list[Output]:
        result = self.shared.out.copy()
        self.shared.out.clear()
        return result

    def _listens_to(self, event: _FromPeers) -> bool:
        """A removed peer's line carries nothing that counts, but it could still make us work; one that was only gone
        may ask to come back."""
        shared, previous = self.shared, self.router.previous.round
        via, active = event.via, shared.state.roster.active
        returned = shared.state.summary.returned
        newcomer = returned and any(peer == via and since == shared.state.step for peer, since in returned)
        if via is None or (via in active and not newcomer):
            return True
        heard = shared.round is not None and self.sync_server.hears(event, shared.state, shared.past)
        known = {*active, *(previous.attempt.roster.active if previous is not None else ())}
        if via in known and (not heard or isinstance(event, TranscriptRequested)):
            return True
        spoken = not heard and isinstance(event, MessageArrived | ViewArrived)
        if spoken and via in nearly_in(shared.settings, shared.state):
            return True  # it may be where we are not yet, and says nothing a second time
        if not heard:
            shared.drop(via, "removed_line")
        return False

    def _start(self) -> None:
        shared = self.shared
        if self.resumption is not None:
            return self.lifecycle.resume(self.resumption, self._away_s)
        if shared.me not in shared.state.roster.active:
            return self.lifecycle.apply()
        shared.out.append(PhaseEntered(0, 0, Phase.HELLO.name))
        shared.out.append(SetTimer(deadlines.HELLO, outcome_s(shared.settings)))
        shared.out.append(Say(shared.state.roster.active, self.greeting.hello(shared.me)))
        return shared.out.append(SetTimer(deadlines.UNBEGUN, laggards_s(shared.settings)))

    def _learn(self, via: int, snapshot: Snapshot) -> None:
        """Somebody tells us a later state: we may have been removed while we were away."""
        shared = self.shared
        if not shared.comes_back and shared.round is not None:
            return shared.drop(via, "unasked_lesson")
        client = shared.client
        if client is None or (not client.convinced and client.state is not shared.state):
            shared.client = client = shared.new_client()
        return client.learn(via, snapshot)

    def _bulk(self, via: int | None, key: BulkKey, values_P: Tensor) -> None:
        client, round_ = self.shared.client, self.shared.round
        if client is not None and via is not None and client.expects(via, key, values_P.numel()):
            return client.take(via, key, values_P)
        if round_ is None:
            return self.shared.drop(via, "unexpected_bulk")
        if via is None and (key.step, key.attempt) > (round_.attempt.step, round_.attempt.number):
            return self.shared.kept.append((key, values_P))
        return round_.take_bulk(via, key, values_P)

    def _request(self, via: int, key: BulkKey) -> None:
        for round_ in (self.shared.round, self.router.previous.round):
            if round_ is not None and round_.holds(key):
                return round_.request(via, key)
        return self.shared.drop(via, "unserved_request")

    def _gradient(self, event: GradientReady) -> None:
        shared = self.shared
        if shared.settings.precision.narrow:
            event = replace(event, gradient_D=shared.settings.precision.rounded(event.gradient_D))
        if shared.client is not None and shared.round is None:
            return shared.client.computed(event)
        past = shared.past.step if shared.past is not None else None
        current = event.step == (shared.state.step if event.purpose is Purpose.OWN else past)
        if not (current or event.purpose is Purpose.UNDO) or not self.lifecycle.gradients.take(event):
            return shared.drop(None, "unwanted_gradient")
        shared.out += self.lifecycle.gradients.rechecks.next()
        if shared.round is not None and event.purpose is Purpose.OWN:
            shared.round.take_own()
        return None

    # --- deadlines --------------------------------------------------------------------------------------------

    def _deadline(self, name: str) -> None:
        shared, previous = self.shared, self.router.previous
        for dispute in (shared.dispute, previous.dispute):
            if dispute is not None:
                step, number = dispute.round.attempt.step, dispute.round.attempt.number
                if name == round_timer(step, number):
                    return dispute.round_over()
                missed = dispute is previous.dispute and (step, number) in shared.missed
                if name == outcome_timer(step, number) and missed:
                    return previous.close()  # the others may have been through with it before we were back
                if name == outcome_timer(step, number):
                    unheard = ", ".join(f"peer {peer}" for peer in dispute.unheard) or "nobody"
                    problem = f"no majority of the roster agrees on how the dispute ended; missing: {unheard}"
                    return shared.halt(None, problem)
        match name:
            case deadlines.LAGGARDS if shared.round is not None:
                shared.round.remind()
            case deadlines.BULK if shared.round is not None:
                attempt = shared.round.attempt
                shared.round.bulk_overdue(shared.all_were_away((attempt.step, attempt.number)))
            case deadlines.MESSAGES if shared.round is not None:
                shared.round.overdue()
            case deadlines.STALL if shared.dispute is not None and shared.dispute.follow_s:
                problem = "a dispute decided what this step comes to, but the bytes or gradients for it do not come"
                shared.halt(None, problem)
            case deadlines.STALL:
                round_ = shared.round
                silent = list(round_.attempt.transcript.missing(round_.phase)) if round_ is not None else []
                shared.halt(None, f"peers {silent} do not answer, and no quorum removes them")
            case state_sync.PULL | state_sync.ASK if shared.client is not None:
                given_up = shared.client.overdue(name)
                return shared.halt(None, given_up) if given_up is not None else None
            case deadlines.UNBEGUN if shared.round is None and not self.greeting.quorate:
                # The run may have begun while we were away, killed before our first attempt: nobody says it again.
                others = tuple(peer for peer in shared.state.roster.active if peer != shared.me)
                shared.out.append(RequestTranscript(others, 0, 0))
            case deadlines.FORWARD:
                previous.pass_on()
            case deadlines.BEFORE if shared.dispute is not None and shared.dispute.resolved is not None:
                shared.dispute.followed = True
            case deadlines.BEFORE:
                previous.overdue()
            case deadlines.HELLO:
                self._greetings_overdue()
        return None

    def _greetings_overdue(self) -> None:
        self.greeting.overdue()
        if not self.greeting.quorate:
            missing = self.greeting.missing
            who, most = ", ".join(map(str, missing)), self.shared.state.roster.faults
            self.shared.halt(missing[0], f"said no HELLO within the deadline (missing: {who}; at most {most} may be)")
