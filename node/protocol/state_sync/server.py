"""What an active peer does for peers that were removed as gone and come back, and for newcomers: it tells them the
state when they ask, sends them its vectors, and keeps their JOINs for its REPORT; and the applications that its owner
hands it. Who was gone and may not come back is told the state, and sent the vectors of the final one alone; nobody else
who is out is listened to.
"""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from btard.node.errors import WireError
from btard.node.protocol.api import (
    BulkKey,
    BulkKind,
    BulkRequested,
    Dropped,
    Input,
    MessageArrived,
    Output,
    SendBulk,
    SendSnapshot,
    TranscriptRequested,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.settings import Settings, Tools
from btard.node.protocol.state.state import State
from btard.node.protocol.state_sync import admission
from btard.node.protocol.state_sync.messages import Snapshot, snapshot_of
from btard.node.protocol.state_sync.probation import absent_of, candidates_of, join_slot, joins_fit
from btard.node.protocol.wire.certificate import open_signed
from btard.node.protocol.wire.encoding import decode_body, encode, encode_signed
from btard.node.protocol.wire.messages import Application, Hello, Join, Phase, Signed, body_bytes

_LESSONS = 8
"""Lessons that one peer may have for each step of its probation: what it costs us is bounded."""
_PER_STEP = 2
_MOST_WAITING = 8
"""Applications that a member keeps: its owner hands them to it."""


class StateSyncServer:
    """One active peer's side of all probations.

    Args:
        settings, tools: see there.
        out: where outputs are appended.
    """

    def __init__(self, settings: Settings, tools: Tools, out: list[Output]) -> None:
        self._settings, self._tools, self._out = settings, tools, out
        self._asking: dict[int, int] = {}
        """The step whose state a peer knows, by peer: it waits for a newer one."""
        self._told: Counter[int] = Counter()
        self._joins: dict[tuple[int, int], dict[bytes, Signed]] = {}
        self._served: set[tuple[int, BulkKey]] = set()
        self._applications: dict[bytes, Application] = {}
        """By key, in the order in which they came."""

    def hears(self, event: Input, state: State, past: Attempt | None) -> bool:
        """Take an input from a peer that is not active; false if it is none of our business."""
        match event:
            case TranscriptRequested(via=via) if via in _newcomers(state):
                self._tell(via, snapshot_of(state, past.record() if past is not None else None))
            case TranscriptRequested(via=via, step=step) if via in self._told_of(state):
                self._ask(via, step, state)
            case MessageArrived(via=int(via), signed=signed) if via in self._waited_for(state):
                return self._message(via, signed, state)
            case BulkRequested(via=via, key=key) if key.kind is BulkKind.STATE:
                self._serve(via, key, state, past)
            case _:
                return False
        return True

    def apply(self, application: Application, state: State) -> str | None:
        """Keep an application for a REPORT of ours; returns why it is refused, None if it is kept."""
        reason = admission.refused(application, self._settings, state.roster, state.summary, self._tools.verify)
        if reason is None and application.key not in self._applications and len(self._applications) >= _MOST_WAITING:
            reason = "too_many_applications"
        if reason is None:
            self._applications[application.key] = application
        return reason

    def application(self, attempt: Attempt) -> tuple[bytes, ...]:
        """The application that belongs into our REPORT, if any does; those that can never enter are forgotten."""
        settings, state, verify = attempt.settings, attempt.state, attempt.tools.verify
        if attempt.me != admission.introducer(settings, attempt.roster, state.summary):
            return ()
        self._applications = {
            key: each
            for key, each in self._applications.items()
            if admission.refused(each, settings, attempt.roster, state.summary, verify) is None
        }
        return tuple(encode(each) for each in self._applications.values())[:1]

    def holds(self, signed: Signed) -> bool:
        """True if this very message is a JOIN that we keep."""
        return any(signed is kept for of_peer in self._joins.values() for kept in of_peer.values())

    def teach(self, state: State, past: Attempt) -> None:
        """A step is committed: tell those who wait or whose probation it begins, and those whom it lets in what they
        have to know.

        Args:
            state: the new one.
            past: the attempt that led to it.
        """
        newcomers = _newcomers(state)
        self._told.update(newcomers)
        if newcomers:
            self._out.append(SendSnapshot(newcomers, snapshot_of(state, past.record())))
        waits = {*self._asking}
        if self._settings.roster != "closed":
            entered = set(admission.candidates(state.summary)) - set(admission.candidates(past.state.summary))
            for peer in entered:  # its id may have been another's, who has used up what is told to one
                del self._told[peer]
            waits |= entered
        waiting = tuple(sorted(peer for peer in waits if peer not in newcomers))
        self._asking = {}
        if waiting:
            self._told.update(waiting)
            self._out.append(SendSnapshot(waiting, snapshot_of(state, None)))
        self._joins = {key: held for key, held in self._joins.items() if key[0] >= state.step - 1}
        self._served = {(via, key) for via, key in self._served if key.step >= state.step - 1}

    def joins(self, attempt: Attempt) -> tuple[bytes, ...]:
        """The JOINs of the step before that belong into our REPORT, and an application."""
        held = [
            encode_signed(signed)
            for (step, _), of_peer in sorted(self._joins.items())
            for signed in of_peer.values()
            if step == attempt.step - 1
        ]
        joins = tuple(data for data in held if joins_fit((data,), attempt, attempt.me))
        return (*joins, *self.application(attempt)) if self._applications else joins

    def _ask(self, via: int, step: int, state: State) -> None:
        if state.step > max(step, 0):
            return self._tell(via, snapshot_of(state, None))
        if self._patient(via):
            self._asking[via] = step
        return None

    def _tell(self, via: int, snapshot: Snapshot) -> None:
        if self._patient(via):
            self._told[via] += 1
            self._out.append(SendSnapshot((via,), snapshot))
            if snapshot.now.summary.ends(self._settings.steps):  # it may have lost what it fetched before
                self._served = {(peer, key) for peer, key in self._served if peer != via}

    def _patient(self, via: int) -> bool:
        """True while a peer has not used up its snapshots."""
        if self._told[via] < _LESSONS * (self._settings.probation + 1):
            return True
        self._drop(via, "asked_too_often")
        return False

    def _message(self, via: int, signed: Signed, state: State) -> bool:
        """A JOIN, or the greeting of a process that knows nothing any more. A greeting's signature is not asked for: it
        gets what an unsigned request over the same line gets."""
        roster = state.roster
        peers = len(roster.keys)
        try:
            body = decode_body(signed.body) if len(signed.body) <= body_bytes(Phase.JOIN, peers) else None
        except WireError:
            body = None
        if isinstance(body, Hello) and body.slot.sender == via:
            self._ask(via, 0, state)
            return True
        if not isinstance(body, Join):
            return False
        slot = body.slot
        recent = state.step - 1 <= slot.step <= state.step
        if not recent or slot != join_slot(self._settings, roster, slot.step, via) or body.prefix:
            self._drop(via, "wrong_slot")
            return True
        held = self._joins.setdefault((slot.step, via), {})
        if signed.body in held or len(held) >= _PER_STEP:
            self._drop(via, "duplicate")
            return True
        found = open_signed(signed, roster.keys, self._tools.verify, run=self._settings.run, kind=Join, senders=(via,))
        if isinstance(found, str):
            self._drop(via, found)
        else:
            held[signed.body] = signed
        return True

    def _serve(self, via: int, key: BulkKey, state: State, past: Attempt | None) -> None:
        """A vector of the state before this step, or before the last one, once for each."""
        welcome = via in _newcomers(state) or via in self._waited_for(state)
        values_D = self._find(key, state, past)
        if not welcome or values_D is None or (via, key) in self._served:
            return self._drop(via, "unserved_request")
        self._served.add((via, key))
        self._out.append(SendBulk(via, key, values_D))
        return None

    def _told_of(self, state: State) -> tuple[int, ...]:
        """Who may ask for a state: whoever was only ever gone, and the newcomer on probation."""
        return (*absent_of(state), *admission.candidates(state.summary))

    def _waited_for(self, state: State) -> tuple[int, ...]:
        """Who is out, and has something to do here: to come back, or to fetch the end."""
        return absent_of(state) if state.summary.ends(self._settings.steps) else candidates_of(self._settings, state)

    def _find(self, key: BulkKey, state: State, past: Attempt | None) -> Tensor | None:
        for each in (state, past.state if past is not None else None):
            if each is not None and key == BulkKey(each.step, 0, BulkKind.STATE, 0, key.part) and key.part in (0, 1):
                values_D = (each.parameters_D, each.optimiser_D)[key.part]
                return values_D if values_D.numel() else None
        return None

    def _drop(self, via: int, reason: str) -> None:
        self._out.append(Dropped(via, reason))


def _newcomers(state: State) -> tuple[int, ...]:
    """Who is in the roster again from this step on."""
    return tuple(peer for peer, since in state.summary.returned if since == state.step)
