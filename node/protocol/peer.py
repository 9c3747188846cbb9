"""A Peer: inputs in, outputs out, no clock, socket, thread or global randomness.

It greets, then carries one attempt after the other through its phases (node/protocol/attempt/round.py). n equal CLOSEs
commit the step, or void the attempt and start the next one at the same step with whoever is left. What goes wrong
between peers goes to a dispute (node/protocol/disputes/dispute.py), whose OUTCOME does the same.
"""

from __future__ import annotations

from torch import Tensor

from btard.node.protocol.api.events import (
    BulkArrived,
    BulkKey,
    BulkRequested,
    CancelTimer,
    DeadlinePassed,
    Dropped,
    Forward,
    GradientReady,
    Input,
    MessageArrived,
    Output,
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
from btard.node.protocol.api.notices import Expelled, PhaseEntered
from btard.node.protocol.attempt import timers
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import outcome_s
from btard.node.protocol.attempt.gradient_requests import Gradients
from btard.node.protocol.attempt.lifecycle import AttemptLifecycle
from btard.node.protocol.attempt.record import Resumption
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.before import Before
from btard.node.protocol.disputes.dispute import outcome_timer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.peer_state import HELLO
from btard.node.protocol.state_sync.client import ASK as ASK_STATE
from btard.node.protocol.state_sync.client import PULL as PULL_STATE
from btard.node.protocol.state_sync.client import StateSyncClient
from btard.node.protocol.state_sync.messages import Snapshot
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.messages import Phase

_FromPeers = MessageArrived | ViewArrived | BulkRequested | TranscriptRequested
_FROM_PEERS = (MessageArrived, ViewArrived, BulkRequested, TranscriptRequested)
_RECALLS = 3
"""How often one peer may ask during one attempt of ours: it can be started again more than once within a deadline."""


__all__ = ["HELLO", "Peer"]


class Peer(AttemptLifecycle):
    """One honest peer, as a driver sees it (its arguments: see `PeerState`)."""

    def restore(self, resumption: Resumption, away_s: float = 0.0) -> None:
        """Before Start: go on where `snapshot` was taken, instead of greeting.

        Args:
            resumption: the snapshot.
            away_s: how long ago it was taken: what others wait for in the attempt before has gone on meanwhile.
        """
        self._resumed, self._away_s, self.comes_back = resumption, away_s, True

    @property
    def resumable(self) -> bool:
        """There is an attempt to go on with: we are in the roster (one input may begin an attempt and end it)."""
        return self._round is not None and self.me in self.state.roster.active

    def snapshot(self) -> Resumption:
        """What `restore` needs, at the beginning of an attempt."""
        assert self._round is not None
        past = self.past.record() if self.past is not None else None
        proofs = (*self._round.proofs, *self._proofs)
        previous = self._previous.attempt if self._previous is not None else None
        before = previous.record() if previous is not None and previous is not self.past else None
        return Resumption(self.state, self._round.attempt.number, past, self._certificate, proofs, before)

    def holdings(self) -> tuple[int, int, dict[BulkKey, Tensor]] | None:
        """Step and number of the attempt under way, and the tensors that its end depends on; None if there is none."""
        if self._round is None:
            return None
        attempt = self._round.attempt
        return attempt.step, attempt.number, self._round.transfers.held()

    def handle(self, event: Input) -> list[Output]:
        """Take one input; return what follows from it, in the order in which it has to happen."""
        if isinstance(event, TimePassed):
            self._watch.now_s = event.now_s
            return []
        self.admitted = False
        if self.stopped:
            return []
        if isinstance(event, _FROM_PEERS) and not self._listens_to(event):
            self.admitted = isinstance(event, MessageArrived) and self._sync_server.holds(event.signed)
            return self._flush()
        match event:
            case Start():
                self._greet() if self._resumed is None else self._resume(self._resumed)
            case MessageArrived(via, signed):
                self._admit(via, self._message(via, signed))
            case ViewArrived(via, endorsed):
                self._admit(via, self._view(via, endorsed))
            case BulkArrived(via, key, values_P):
                self._bulk(via, key, values_P)
            case BulkRequested(via, key):
                self._request(via, key)
            case TranscriptRequested(via, step, attempt):
                self._recall(via, step, attempt)
            case SnapshotArrived(via, snapshot):
                self._learn(via, snapshot)
            case GradientReady():
                self._gradient(event)
            case DeadlinePassed(name):
                self._deadline(name)
        while self._advance():
            pass
        return self._flush()

    def _admit(self, via: int | None, refused: str | None) -> None:
        self.admitted = refused is None
        if refused is not None:
            self._drop(via, refused)

    def _flush(self) -> list[Output]:
        result = self._out.copy()
        self._out.clear()
        return result

    def expects(self, via: int, key: BulkKey, size_bytes: int) -> bool:
        """For the transport: would a tensor of this key and size be kept? Asked before memory is spent on it."""
        if self._candidate is not None and self._candidate.expects(via, key, size_bytes // 4):
            return True
        return self._round is not None and self._round.transfers.expects(via, key, size_bytes // 4)

    def _listens_to(self, event: _FromPeers) -> bool:
        """A removed peer's line carries nothing that counts, but it could still make us work; one that was only gone
        may ask to come back."""
        via, active = event.via, self.state.roster.active
        newcomer = any(peer == via and since == self.state.step for peer, since in self.state.summary.returned)
        if via is None or (via in active and not newcomer):
            return True
        heard = self._round is not None and self._sync_server.hears(event, self.state, self.past)
        known = {*active, *(self._previous.attempt.roster.active if self._previous else ())}
        if via in known and (not heard or isinstance(event, TranscriptRequested)):
            return True
        if not heard:
            self._drop(via, "removed_line")
        return False

    def _learn(self, via: int, snapshot: Snapshot) -> None:
        """Somebody tells us a later state: we may have been removed while we were away."""
        if not self.comes_back and self._round is not None:
            return self._drop(via, "unasked_lesson")
        candidate = self._candidate
        if candidate is None or (not candidate.convinced and candidate.state is not self.state):
            self._candidate = candidate = self._new_candidate()
        return candidate.learn(via, snapshot)

    def _leave(self) -> None:
        """We are out of the roster: nothing of the attempt under way concerns us any more."""
        self._round = self._dispute = None
        self._before, self.past, self._gradients = Before(), None, Gradients()
        self._out += [CancelTimer(name) for name in (*timers.OF_AN_ATTEMPT, timers.FORWARD, timers.BEFORE, HELLO)]

    def _rejoin(self, candidate: StateSyncClient) -> bool:
        """Go on where a quorum lets us in; true if anything happened."""
        if self._round is not None:
            self._leave()
            return True
        if self.state is not candidate.state:
            self.state = candidate.state
            self._admission.forget(self.state.step)
        if candidate.ended is not None:
            self.stopped = True
            self._out.append(Expelled(candidate.state.step, candidate.ended))
        elif candidate.resumption is not None:
            before, self._candidate = candidate.resumption, None
            assert before.past is not None
            self.state, self._certificate = before.state, before.certificate
            self.past = Attempt.of(before.past, self.settings, self.tools, self.me, self._secret_seed)
            self._admission.forget(self.state.step)
            self._missed.add((self.state.step, 0))
            self._begin(0, Before())
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
        rounds = tuple(round_ for round_ in (self._round, self._previous) if round_ is not None)
        for round_ in rounds:
            round_.transfers.serve_again(via)
        held = (*(round_.attempt for round_ in rounds), self.past)
        for attempt in held:
            if attempt is not None and (attempt.step, attempt.number) == (step, number):
                self._out.append(Forward((via,), tuple(attempt.transcript.everything())))
                break
        if self._round is None or (step, number) != (self._round.attempt.step, self._round.attempt.number):
            self._out.append(Forward((via,), self._certificate))
        for dispute in (self._dispute, self._background):
            if dispute is not None and dispute.begun:  # it may be back in time to show what it holds
                self._out.append(Forward((via,), dispute.views))
        return None

    def _gradient(self, event: GradientReady) -> None:
        if self._candidate is not None and self._round is None:
            return self._candidate.computed(event)
        past = self.past.step if self.past is not None else None
        current = event.step == (self.state.step if event.purpose is Purpose.OWN else past)
        if not (current or event.purpose is Purpose.UNDO) or not self._gradients.take(event):
            return self._drop(None, "unwanted_gradient")
        if self._round is not None and event.purpose is Purpose.OWN:
            self._round.take_own()
        return None

    def _deadline(self, name: str) -> None:
        for dispute in (self._dispute, self._background):
            if dispute is not None:
                step, number = dispute.round.attempt.step, dispute.round.attempt.number
                if name == round_timer(step, number):
                    return dispute.round_over()
                missed = dispute is self._background and (step, number) in self._missed
                if name == outcome_timer(step, number) and missed:
                    return self._close_before(())  # the others may have been through with it before we were back
                if name == outcome_timer(step, number):
                    unheard = ", ".join(f"peer {peer}" for peer in dispute.unheard) or "nobody"
                    problem = f"no majority of the roster agrees on how the dispute ended; missing: {unheard}"
                    return self._halt(None, problem)
        match name:
            case timers.LAGGARDS if self._round is not None:
                self._round.remind()
            case timers.BULK if self._round is not None:
                self._round.bulk_overdue()
            case timers.MESSAGES if self._round is not None:
                self._round.overdue()
            case timers.STALL if self._dispute is not None and self._dispute.lacking:
                self._halt(None, "a dispute decided what this step comes to, but the bytes for it do not come")
            case timers.STALL:
                self._halt(None, f"peers {self._silent()} do not answer, and no quorum removes them")
            case _ if name in (PULL_STATE, ASK_STATE) and self._candidate is not None:
                given_up = self._candidate.overdue(name)
                return self._halt(None, given_up) if given_up is not None else None
            case timers.FORWARD:
                self._pass_on()
            case timers.BEFORE if self._dispute is not None and self._dispute.resolved is not None:
                self._dispute.followed = True
            case timers.BEFORE:
                self._before_overdue()
            case _ if name == HELLO:
                self._greeting.overdue()
                if not self._greeting.quorate:
                    missing = self._greeting.missing
                    who, most = ", ".join(map(str, missing)), self.state.roster.faults
                    text = f"said no HELLO within the deadline (missing: {who}; at most {most} may be)"
                    self._halt(missing[0], text)
        return None

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
            self._check_trigger()
            return True
        if self._round.frozen and self._ended_without_us():
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
            self.past = Attempt.of(before.past, self.settings, self.tools, self.me, self._secret_seed)
        self._begin(before.number, self._remembered(before))
        others = tuple(peer for peer in self.state.roster.active if peer != self.me)
        self._out.append(RequestTranscript(others, self.state.step, before.number))

    def _remembered(self, before: Resumption) -> Before:
        """The attempt before the one that we go on with, from what was kept: we answer its dispute while others still
        can join it, and say nothing of how one ends that we may have missed a part of."""
        self._missed.add((before.state.step, before.number))
        attempt = self.past if before.number == 0 else None
        if before.before is not None:
            attempt = Attempt.of(before.before, self.settings, self.tools, self.me, self._secret_seed)
        if attempt is None or attempt.me != self.me:
            return Before()
        self._missed.add((attempt.step, attempt.number))
        self._round = Round(attempt, None, Gradients(), self._out)
        self._round.phase = Phase.CLOSE
        ended = self._ended(Certificate.of(before.certificate))
        ended.age_s = self._away_s
        return ended

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
        self.state = self.state.with_facts(fingerprints=greeting.fingerprints)
        self._certificate = tuple(greeting.messages())
        self._out.append(CancelTimer(HELLO))
        self._begin(0, Before(closed=False))
        return True
