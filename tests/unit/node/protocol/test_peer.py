"""Inputs in, outputs out: greeting, admission of messages, deadlines, endings. (Whole runs: tests/simulation.)"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import msgspec
import pytest
import torch

from btard.node.config import Plugin, Role, Schedule
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.protocol.api import (
    Banned,
    BulkArrived,
    BulkKey,
    BulkKind,
    CancelTimer,
    ComputeGradient,
    DeadlinePassed,
    Dropped,
    Expelled,
    Finished,
    GradientReady,
    Halted,
    MessageArrived,
    Output,
    PhaseEntered,
    Purpose,
    Say,
    SendBulk,
    SetTimer,
    Start,
)
from btard.node.protocol.attempt.deadlines import HELLO, UNBEGUN
from btard.node.protocol.peer import Peer
from btard.node.protocol.wire.encoding import encode_body, signing_bytes
from btard.node.protocol.wire.messages import Agg, Body, Close, Commit, Hello, Missing, Phase, Reveal, Signed, Void
from tests.protocol_attempts import PEERS, said, six, stopped
from tests.simulation.checkers import Agreement, EvidenceHolds
from tests.simulation.hostile import interpose
from tests.simulation.stage import play, set_up

BAD = 5


def signed_by(peer: int, body: Body) -> Signed:
    _, secrets = generate(0, PEERS)
    data = encode_body(body)
    return Signed(data, Signer(bytes.fromhex(secrets[peer].signing_seed)).sign(signing_bytes(body, data)))


def fresh(node: int = 0, **more: object) -> Peer:
    return six(**more).simulation.nodes[node].peer


def hellos(peer: Peer, fingerprint: bytes | None = None, odd: tuple[int, ...] = (BAD,)) -> list[Output]:
    """Greet a peer from everyone, from the `odd` ones with another fingerprint."""
    slot = peer.handle(Start())[2]
    assert isinstance(slot, Say)
    outputs: list[Output] = []
    for sender in range(PEERS):
        own = msgspec.structs.replace(slot.body.slot, sender=sender)
        print_ = fingerprint if fingerprint is not None and sender in odd else peer.shared.settings.fingerprint
        outputs += peer.handle(
            MessageArrived(sender, signed_by(sender, Hello(own, (), peer.shared.settings.run, print_)))
        )
    return outputs


def test_a_start_greets_everyone_itself_included() -> None:
    phase, timer, greeting, asks = fresh().handle(Start())
    assert phase == PhaseEntered(0, 0, "HELLO")
    assert isinstance(timer, SetTimer)
    assert isinstance(asks, SetTimer)
    assert (timer.name, asks.name) == (HELLO, UNBEGUN)
    assert isinstance(greeting, Say)
    assert greeting.to == tuple(range(PEERS))


def test_the_last_greeting_begins_step_0() -> None:
    outputs = hellos(fresh())
    kinds = [type(output) for output in outputs]
    assert kinds.count(PhaseEntered) == 1
    (wanted,) = (output for output in outputs if isinstance(output, ComputeGradient))
    assert (wanted.purpose, wanted.step, wanted.peer) == (Purpose.OWN, 0, 0)


def test_where_more_than_f_compute_elsewhere_the_run_does_not_begin() -> None:
    halted = hellos(fresh(), b"another machine", odd=(3, 4, BAD))[-1]
    assert isinstance(halted, Halted)
    assert (halted.peer, halted.phase) == (3, "HELLO")
    assert "--recompute-tolerance" in halted.problem


def test_with_a_tolerance_another_environment_is_welcome() -> None:
    assert not any(isinstance(found, Halted) for found in hellos(fresh(recompute_tolerance=1e-6), b"another machine"))


def test_a_missing_greeting_is_named_at_the_deadline() -> None:
    peer = fresh()
    peer.handle(Start())
    halted = peer.handle(DeadlinePassed(HELLO))[-1]
    assert isinstance(halted, Halted)
    assert halted.problem == (
        "step 0, phase HELLO: peer 0 said no HELLO within the deadline (missing: 0, 1, 2, 3, 4, 5; at most 2 may be)"
    )


def test_a_halted_peer_says_nothing_more() -> None:
    peer = fresh()
    peer.handle(Start())
    peer.handle(DeadlinePassed(HELLO))
    assert peer.stopped
    assert peer.handle(Start()) == []


# --- admission --------------------------------------------------------------------------------------------------------


def at_agg() -> tuple[Peer, Commit]:
    """Peer 0 in AGG of step 1, and the COMMIT of peer 5."""
    stage, round_ = stopped(1, "AGG")
    body = said(round_.attempt, Commit, BAD)
    assert isinstance(body, Commit)
    return stage.simulation.nodes[0].peer, body


SLOTS = [
    ("another run", {"run": bytes(32)}, "foreign_run"),
    ("a stranger", {"sender": 6}, "unknown_sender"),
    ("a negative sender", {"sender": -1}, "unknown_sender"),
    ("an enormous sender", {"sender": 2**63}, "unknown_sender"),
    ("an earlier attempt", {"attempt": -1}, "late"),
    ("far ahead", {"step": 9}, "too_early"),
    ("two attempts ahead", {"attempt": 2}, "too_early"),
    ("another roster", {"roster": bytes(32)}, "wrong_slot"),
]


@pytest.mark.parametrize(("changes", "reason"), [row[1:] for row in SLOTS], ids=[row[0] for row in SLOTS])
def test_messages_of_other_slots_are_dropped_and_counted(changes: dict[str, object], reason: str) -> None:
    peer, commit = at_agg()
    body = msgspec.structs.replace(commit, slot=msgspec.structs.replace(commit.slot, **changes))
    assert peer.handle(MessageArrived(BAD, signed_by(BAD, body))) == [Dropped(BAD, reason)]


def test_a_message_comes_twice() -> None:
    peer, commit = at_agg()
    for via in (BAD, 2, None):
        assert peer.handle(MessageArrived(via, signed_by(BAD, commit))) == [Dropped(via, "duplicate")]


@pytest.mark.parametrize("changes", [{"step": 2}, {"attempt": 1}], ids=["the next step", "the next attempt"])
def test_a_message_from_ahead_waits(changes: dict[str, object]) -> None:
    peer, commit = at_agg()
    body = msgspec.structs.replace(commit, slot=msgspec.structs.replace(commit.slot, **changes))
    assert peer.handle(MessageArrived(BAD, signed_by(BAD, body))) == []
    assert len(peer.router.admission.release()) == 1


def test_a_greeting_after_the_start_is_late() -> None:
    peer, commit = at_agg()
    slot = msgspec.structs.replace(commit.slot, phase=Phase.HELLO, step=0)
    hello = Hello(slot, (), peer.shared.settings.run, peer.shared.settings.fingerprint)
    assert peer.handle(MessageArrived(BAD, signed_by(BAD, hello))) == [Dropped(BAD, "late")]


def test_an_unwanted_tensor_is_dropped() -> None:
    key = BulkKey(0, 0, BulkKind.PART, 1, 0)
    assert fresh().handle(BulkArrived(1, key, torch.zeros(4))) == [Dropped(1, "unexpected_bulk")]
    assert not fresh().expects(1, key, 16)


GRADIENTS = [(Purpose.OWN, 0, 0), (Purpose.OWN, 2, 0), (Purpose.VALIDATE, 1, 3), (Purpose.JUDGE, 0, 77)]


@pytest.mark.parametrize(("purpose", "step", "peer"), GRADIENTS)
def test_a_gradient_that_nobody_asked_for(purpose: Purpose, step: int, peer: int) -> None:
    honest, _ = at_agg()
    ready = GradientReady(purpose, step, peer, torch.zeros(19), 0.0)
    assert honest.handle(ready) == [Dropped(None, "unwanted_gradient")]


# --- how misconduct ends ----------------------------------------------------------------------------------------------


def rewriting(kind: type, change):  # type: ignore[no-untyped-def]
    """In step 1, change what peer 5 says in one phase; `change(say)` gives what is said instead."""

    def rewrite(output: Output) -> Iterable[Output]:
        if isinstance(output, Say) and isinstance(output.body, kind) and output.body.slot.step == 1:
            return change(output)
        return [output]

    return rewrite


PUT = msgspec.structs.replace
MISCONDUCT = [
    ("silence", Commit, lambda say: [], "silent"),
    ("silence toward f + 1, healed by those who heard it", Agg, lambda say: [Say((3, 4, 5), say.body)], None),
    ("silence toward one", Agg, lambda say: [Say((0, 1, 3, 4, 5), say.body)], None),
    ("two messages for one slot", Commit, lambda say: [say, Say(say.to, PUT(say.body, randomness=bytes(32)))],
     "equivocation"),
    ("two commitments to different peers", Commit,
     lambda say: [Say((0, 1, 2), PUT(say.body, randomness=bytes(32))), Say((3, 4, 5), say.body)], "equivocation"),
    ("a false prefix", Reveal, lambda say: [Say(say.to, PUT(say.body, prefix=(bytes(32),) * 2))], "prefix"),
    ("no prefix", Reveal, lambda say: [Say(say.to, PUT(say.body, prefix=()))], "prefix"),
    ("another value revealed", Reveal, lambda say: [Say(say.to, PUT(say.body, x=bytes(32)))], "malformed"),
    ("aggregates withheld from it, it says", Reveal, lambda say: [Say(say.to, PUT(say.body, have=(False,) * 6))], None),
    ("a complaint", Agg, lambda say: [Say(say.to, PUT(say.body, aggregate=Missing((0,))))], None),
    ("another state", Close, lambda say: [Say(say.to, PUT(say.body, value=bytes(32)))], "close"),
    ("void without reason", Close, lambda say: [Say(say.to, PUT(say.body, value=Void(())))], "close"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "reason"), [row[1:] for row in MISCONDUCT],
                         ids=[row[0] for row in MISCONDUCT])  # fmt: skip
def test_misconduct_ends_within_its_step(kind: type, change, reason: str | None) -> None:  # type: ignore[no-untyped-def]
    stage = six()
    interpose(stage, BAD, rewriting(kind, change))
    # The checkers take whoever has a role for Byzantine; this one's machine is the rewritten one.
    stage = replace(stage, roles={BAD: Role((Plugin("sign_flip"),), Schedule(start=99))})
    seen = play(stage, (Agreement, EvidenceHolds))
    bans = {
        (found.output.step, found.output.peer, found.output.reason)
        for found in seen
        if isinstance(found.output, Banned) and found.node != BAD
    }
    assert bans == ({(1, BAD, reason)} if reason is not None else set())
    assert {found.node for found in seen if isinstance(found.output, Finished)} >= set(range(PEERS)) - {BAD}


def test_a_part_withheld_from_one_is_asked_for_and_stands() -> None:
    stage = six()

    def rewrite(output: Output) -> Iterable[Output]:
        part = isinstance(output, SendBulk) and output.key.kind is BulkKind.PART
        return [] if part and output.key.step == 1 and output.to == 0 else [output]  # type: ignore[union-attr]

    interpose(stage, 4, rewrite)
    seen = play(stage, (Agreement,))
    assert not any(isinstance(found.output, Banned) for found in seen)
    assert stage.simulation.nodes[0].peer.state.summary.complaints == ((0, 4, 1),)


def test_a_part_that_nobody_can_compute_with_is_banned() -> None:
    role = Role((Plugin("sign_flip", {"scale": float("inf")}),), Schedule(start=1), (BAD,))
    seen = play(set_up(six().run, {BAD: role}), (Agreement, EvidenceHolds))
    bans = {(found.output.peer, found.output.reason) for found in seen if isinstance(found.output, Banned)}
    assert bans == {(BAD, "unusable")}


def test_everyone_finishes_and_cancels_its_timer() -> None:
    stage = six()
    seen = play(stage, ())
    assert {found.node for found in seen if isinstance(found.output, Finished)} == set(range(PEERS))
    assert not stage.simulation._timers
    assert stage.simulation.nodes[0].peer.handle(Start()) == []


def test_nothing_of_earlier_steps_is_kept() -> None:
    """Memory of a peer after many steps: the attempt before, without the parts, and no messages from ahead."""
    stage = six()
    play(stage, ())
    peer = stage.simulation.nodes[0].peer
    assert peer.past is not None
    assert (peer.past.step, peer.past.parts, peer.router.admission.release()) == (3, {}, ())
    assert not any(isinstance(found, CancelTimer | Expelled) for found in peer.shared.out)
