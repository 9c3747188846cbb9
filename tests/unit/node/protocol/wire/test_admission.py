"""Which messages count, in which order that is found out, and how much is kept of those that come too early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from btard.node.protocol.api import Disputed, Dropped, MessageArrived, Output, Resolved, ViewArrived
from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.wire.admission import Admission, Place
from btard.node.protocol.wire.encoding import encode_endorsed, encode_signed
from btard.node.protocol.wire.messages import (
    Close,
    Commit,
    Endorsed,
    Outcome,
    Phase,
    Removal,
    Report,
    Signed,
    Slot,
    Suspect,
    View,
    Void,
    body_bytes,
    control_bytes,
    evidence_bytes,
    plain_bytes,
    view_bytes,
)
from tests.fuzz.arena import Arena
from tests.fuzz.scenes import ATTACKER, PEERS, recorded

DIGEST = bytes(32)


class Case:
    """An honest peer in the middle of a step, and what the attacker says there."""

    def __init__(self) -> None:
        self.arena = Arena(0, len(recorded(0)) // 2)
        peer = self.arena.node.peer
        assert peer.attempt is not None
        self.attempt, self.peer = peer.attempt, peer
        self.admission: Admission = peer.router.admission

    def slot(self, phase: Phase, **fields: object) -> Slot:
        return msgspec.structs.replace(self.attempt.slot(phase, ATTACKER), **fields)

    def signed(self, body: object) -> Signed:
        return self.arena.signed(body, ATTACKER)  # type: ignore[arg-type]

    def admit(self, signed: Signed) -> str | Place:
        found = self.admission.admit(
            signed, self.peer.shared.round, self.peer.router.previous.round, self.peer.state.step
        )
        return found if isinstance(found, str) else found[0]

    def tell(self, signed: Signed) -> list[Output]:
        return self.peer.handle(MessageArrived(ATTACKER, signed))


def commit(slot: Slot) -> Commit:
    return Commit(slot, (), (), DIGEST)


MESSAGES: dict[str, tuple[Callable[[Case], Signed], str | Place]] = {
    "current": (lambda case: case.signed(commit(case.slot(Phase.COMMIT))), Place.CURRENT),
    "next step": (
        lambda case: case.signed(commit(case.slot(Phase.COMMIT, step=case.attempt.step + 1))),
        Place.AHEAD,
    ),
    "next attempt": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, attempt=1))), Place.AHEAD),
    "later still": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, step=2**63))), "too_early"),
    "long ago": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, step=-1))), "late"),
    "another run": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, run=DIGEST))), "foreign_run"),
    "another roster": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, roster=DIGEST))), "wrong_slot"),
    "nobody": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, sender=PEERS))), "unknown_sender"),
    "in another's name": (lambda case: case.signed(commit(case.slot(Phase.COMMIT, sender=1))), "bad_signature"),
    "unsigned": (lambda case: Signed(case.signed(commit(case.slot(Phase.COMMIT))).body, bytes(64)), "bad_signature"),
    "no body": (lambda case: Signed(b"\x93\x01\x02", bytes(64)), "malformed"),
    "type and phase": (lambda case: case.signed(commit(case.slot(Phase.CLOSE))), "malformed"),
    "large": (lambda case: case.signed(Close(case.slot(Phase.CLOSE), (), bytes(5000))), "oversized"),
    "huge": (lambda case: Signed(bytes(view_bytes(PEERS) + 1), bytes(64)), "oversized"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_admission(name: str) -> None:
    case = Case()
    make, place = MESSAGES[name]
    assert case.admit(make(case)) == place


def test_a_large_message_is_no_trigger_since_nobody_could_pass_it_on() -> None:
    """A VOID with a reason of a megabyte would make every honest view too large to send."""
    case = Case()
    reason = "x" * (1 << 20)
    outputs = case.tell(case.signed(Close(case.slot(Phase.CLOSE), (), Void((Removal(1, reason, None),)))))
    assert outputs == [Dropped(ATTACKER, "oversized")]


def test_what_is_ahead_is_kept_within_bounds() -> None:
    case = Case()
    for number in range(200):
        slot = case.slot(Phase.COMMIT, step=case.attempt.step + 1)
        case.tell(case.signed(Commit(slot, (), (), number.to_bytes(32, "big"))))
        view = View(case.slot(Phase.VIEW, attempt=1), (), (Signed(number.to_bytes(4, "big"), b""),))
        case.peer.handle(ViewArrived(ATTACKER, Endorsed(case.signed(view), ())))
        for named in (Phase.AGG, Phase.CLOSE):
            suspect = Suspect(case.slot(Phase.SUSPECT, attempt=1), (), named, number % 3)
            case.tell(case.signed(suspect))
    assert len(case.admission.release()) <= 2 * 2 + 2 * 2 + 2 * PEERS


def test_views_that_prove_nothing_are_looked_into_twice_at_most() -> None:
    case = Case()
    reasons = []
    for number in range(20):
        content = (Signed(number.to_bytes(4, "big"), b""),)
        view = View(case.slot(Phase.VIEW), (), content)
        outputs = case.peer.handle(ViewArrived(ATTACKER, Endorsed(case.signed(view), ())))
        assert not any(isinstance(output, Disputed) for output in outputs)
        reasons += [output.reason for output in outputs if isinstance(output, Dropped)]
    assert reasons.count("malformed") == 2
    assert reasons.count("too_many_views") == 18


def test_one_peer_is_no_majority_however_often_it_signs() -> None:
    """OUTCOMEs that say the same under prefixes that differ: each is another message, all are one vote."""
    case = Case()
    said = [Outcome(case.slot(Phase.OUTCOME), (), None, (Removal(1, "silent in AGG", None),))]
    said += [msgspec.structs.replace(said[0], prefix=(bytes([number]),)) for number in range(3)]
    outputs = [output for body in said for output in case.tell(case.signed(body))]
    assert not any(isinstance(output, Resolved) for output in outputs)
    assert case.peer.state.roster.active == tuple(range(PEERS))


def test_a_removed_peer_is_not_listened_to() -> None:
    case = Case()
    state = case.peer.state
    case.peer.shared.state = replace(state, roster=state.roster.without([ATTACKER]))
    case.peer.shared.round, case.peer.router.previous = None, PreviousAttempt(case.peer.shared)
    assert case.tell(case.signed(commit(case.slot(Phase.COMMIT)))) == [Dropped(ATTACKER, "removed_line")]


@pytest.mark.parametrize("peers", [2, 4, 16, 64, 256])
def test_whatever_honest_peers_pass_on_fits_into_what_they_can_send(peers: int) -> None:
    slot = Slot(DIGEST, DIGEST, 2**31, 2**15, Phase.REPORT, peers - 1)
    prefix = (DIGEST,) * 12
    plain = Signed(bytes(plain_bytes(peers)), bytes(64))
    pair = len(encode_signed(plain)) * 2 + 8
    assert 4 * pair <= evidence_bytes(peers)
    report = Report(slot, prefix, (True,) * peers, (), (), (bytes(evidence_bytes(peers)),))
    assert len(msgspec.msgpack.encode(report)) <= body_bytes(Phase.REPORT, peers)
    void = Void(tuple(Removal(peer, "false_accusation", peer) for peer in range(peers)))
    close = Close(msgspec.structs.replace(slot, phase=Phase.CLOSE), prefix, void)
    assert len(msgspec.msgpack.encode(close)) <= body_bytes(Phase.CLOSE, peers)
    view = Signed(bytes(view_bytes(peers)), bytes(64))
    endorsed = Endorsed(view, tuple((peer, bytes(64)) for peer in range(peers)))
    assert len(encode_endorsed(endorsed)) <= control_bytes(peers)
