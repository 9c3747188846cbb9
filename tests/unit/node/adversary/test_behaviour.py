"""Attacks with a memory and timers of their own, around a scripted peer."""

from __future__ import annotations

import pytest

from btard.node.config import Schedule
from btard.node.errors import WireError
from btard.node.protocol.api import DeadlinePassed, Forward, MessageArrived, PhaseEntered, Say, SetTimer
from btard.node.protocol.attempt.deadlines import MESSAGES
from btard.node.protocol.wire.encoding import decode_body, encode_body
from btard.node.protocol.wire.messages import Commit, Phase, Signed
from tests.unit.node.adversary.test_adversary import passed, plugin, slot, sums, surrounded


def test_own_timers_never_reach_the_peer() -> None:
    """A CHECKSUMS is held back until just before the deadline that the peer itself has set."""
    adversary, script = surrounded(plugin("last_instant", phase="CHECKSUMS", to="@0", before_s=0.25))
    entered = PhaseEntered(3, 0, "CHECKSUMS")
    deadline = SetTimer(MESSAGES, 4.0)
    _, kept, own, held = passed(adversary, script, entered, deadline, sums(3))
    assert kept is deadline
    assert isinstance(own, SetTimer) and own.name != MESSAGES
    assert own.after_s == 3.75
    assert isinstance(held, Say)
    heard = len(script.heard)
    assert adversary.handle(DeadlinePassed(own.name)) == []
    assert len(script.heard) == heard
    adversary.handle(DeadlinePassed(MESSAGES))
    assert script.heard[-1] == DeadlinePassed(MESSAGES)


def test_two_attacks_with_timers_do_not_share_them() -> None:
    adversary, script = surrounded(*(plugin("last_instant", phase="CHECKSUMS", before_s=lead) for lead in (0.5, 1.0)))
    sent = passed(adversary, script, PhaseEntered(3, 0, "CHECKSUMS"), SetTimer(MESSAGES, 4.0))
    names = [output.name for output in sent if isinstance(output, SetTimer)]
    assert len(set(names)) == len(names) == 3


def test_a_crash_outlasts_its_schedule() -> None:
    adversary, script = surrounded(plugin("crash"), schedule=Schedule(start=3, every=50))
    assert passed(adversary, script, PhaseEntered(2, 0, "COMMIT"), sums(2))[1:] == [sums(2)]
    entered = PhaseEntered(3, 0, "COMMIT")
    assert passed(adversary, script, entered, sums(3)) == [entered]
    assert passed(adversary, script, PhaseEntered(9, 0, "COMMIT"), sums(9))[1:] == []


def test_bytes_that_are_no_message_go_out_beside_the_other_filters() -> None:
    adversary, script = surrounded(plugin("malformed", how="encoding"), plugin("false_prefix"), plugin("replay"))
    with_roster = [Commit(slot(3, Phase.COMMIT, sender), (), (), b"hidden") for sender in (0, 1, 2)]
    for body in with_roster:
        adversary.handle(MessageArrived(body.slot.sender, Signed(encode_body(body), b"")))
    *_, raw = passed(adversary, script, PhaseEntered(3, 0, "CHECKSUMS"), sums(3))
    assert isinstance(raw, Forward)
    with pytest.raises(WireError, match="canonical"):
        decode_body(raw.messages[0].body)
