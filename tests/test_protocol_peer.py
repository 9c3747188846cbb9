"""Inputs in, outputs out: greeting, admission of messages, deadlines, endings. (Whole runs: tests/simulation.)"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest
import torch

from node.keys import generate
from node.protocol.events import (
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
from node.protocol.messages import (
    Agg,
    Body,
    Close,
    Commit,
    Hello,
    Missing,
    Phase,
    Reveal,
    Signed,
    Void,
    encode_body,
    signing_bytes,
)
from node.protocol.peer import Peer
from node.protocol.round import TIMER
from node.signing import Signer
from tests.protocol_attempts import PEERS, said, six, stopped
from tests.simulation.hostile import interpose
from tests.simulation.stage import Stage, play

BAD = 5


def signed_by(peer: int, body: Body) -> Signed:
    _, secrets = generate(0, PEERS)
    data = encode_body(body)
    return Signed(data, Signer(bytes.fromhex(secrets[peer].signing_seed)).sign(signing_bytes(data)))


def fresh(node: int = 0, **more: object) -> Peer:
    return six(**more).simulation.nodes[node].peer


def hellos(peer: Peer, fingerprint: bytes | None = None) -> list[Output]:
    """Greet a peer from everyone."""
    slot = peer.handle(Start())[2]
    assert isinstance(slot, Say)
    outputs: list[Output] = []
    for sender in range(PEERS):
        own = msgspec.structs.replace(slot.body.slot, sender=sender)
        print_ = fingerprint if fingerprint is not None and sender == BAD else peer.settings.fingerprint
        outputs += peer.handle(MessageArrived(sender, signed_by(sender, Hello(own, (), peer.settings.run, print_))))
    return outputs


def test_a_start_greets_everyone_itself_included() -> None:
    phase, timer, greeting = fresh().handle(Start())
    assert phase == PhaseEntered(0, 0, "HELLO")
    assert isinstance(timer, SetTimer)
    assert timer.name == TIMER
    assert isinstance(greeting, Say)
    assert greeting.to == tuple(range(PEERS))


def test_the_last_greeting_begins_step_0() -> None:
    outputs = hellos(fresh())
    kinds = [type(output) for output in outputs]
    assert kinds == [ComputeGradient, PhaseEntered, SetTimer]
    wanted = outputs[0]
    assert isinstance(wanted, ComputeGradient)
    assert (wanted.purpose, wanted.step, wanted.peer) == (Purpose.OWN, 0, 0)


def test_another_environment_ends_the_run_before_it_begins() -> None:
    halted = hellos(fresh(), b"another machine")[-1]
    assert isinstance(halted, Halted)
    assert (halted.peer, halted.phase) == (BAD, "HELLO")
    assert "--recompute-tolerance" in halted.problem


def test_with_a_tolerance_another_environment_is_welcome() -> None:
    assert not any(isinstance(found, Halted) for found in hellos(fresh(recompute_tolerance=1e-6), b"another machine"))


def test_a_missing_greeting_is_named_at_the_deadline() -> None:
    peer = fresh()
    peer.handle(Start())
    halted = peer.handle(DeadlinePassed(TIMER))[-1]
    assert isinstance(halted, Halted)
    assert "[0, 1, 2, 3, 4, 5]" in halted.problem


def test_a_halted_peer_says_nothing_more() -> None:
    peer = fresh()
    peer.handle(Start())
    peer.handle(DeadlinePassed(TIMER))
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
    ("an earlier step", {"step": 0}, "late"),
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
    assert len(peer._ahead) == 1


def test_a_greeting_after_the_start_is_late() -> None:
    peer, commit = at_agg()
    slot = msgspec.structs.replace(commit.slot, phase=Phase.HELLO, step=0)
    hello = Hello(slot, (), peer.settings.run, peer.settings.fingerprint)
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


# --- endings by a clear error ---------------------------------------------------------------------------------------


def halts(stage: Stage) -> list[Halted]:
    """How the honest peers ended; nobody was banned."""
    seen = play(stage, ())
    assert not any(type(found.output).__name__ in ("Banned", "Expelled") for found in seen)
    return [found.output for found in seen if isinstance(found.output, Halted) and found.node != BAD]


def rewriting(kind: type, change):  # type: ignore[no-untyped-def]
    """In step 1, change what peer 5 says in one phase; `change(body)` gives bodies by recipient."""

    def rewrite(output: Output) -> Iterable[Output]:
        if isinstance(output, Say) and isinstance(output.body, kind) and output.body.slot.step == 1:
            return change(output)
        return [output]

    return rewrite


PUT = msgspec.structs.replace
ERRORS = [
    ("silence", Commit, lambda say: [], "COMMIT", "sent no message"),
    ("silence toward some", Agg, lambda say: [Say((3, 4, 5), say.body)], "AGG", "sent no message"),
    ("two messages for one slot", Commit,
     lambda say: [say, Say(say.to, PUT(say.body, randomness=bytes(32)))], "COMMIT", "two different messages"),
    ("two commitments to different peers", Commit,
     lambda say: [Say((0, 1, 2), PUT(say.body, randomness=bytes(32))), Say((3, 4, 5), say.body)], "AGG",
     "unequal prefixes"),
    ("a false prefix", Reveal, lambda say: [Say(say.to, PUT(say.body, prefix=(bytes(32),) * 2))], "REVEAL",
     "unequal prefixes"),
    ("another value revealed", Reveal, lambda say: [Say(say.to, PUT(say.body, x=bytes(32)))], "REVEAL",
     "another value than it committed to"),
    ("an aggregate withheld from it, it says", Reveal,
     lambda say: [Say(say.to, PUT(say.body, have=(False,) * 6))], "REVEAL", "lacks an aggregate"),
    ("a complaint", Agg, lambda say: [Say(say.to, PUT(say.body, aggregate=Missing((0,))))], "AGG",
     "misses the parts of peers [0]"),
    ("another state", Close, lambda say: [Say(say.to, PUT(say.body, value=bytes(32)))], "CLOSE", "another state"),
    ("void without reason", Close, lambda say: [Say(say.to, PUT(say.body, value=Void(())))], "CLOSE",
     "another state"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "change", "phase", "words"), [row[1:] for row in ERRORS],
                         ids=[row[0] for row in ERRORS])  # fmt: skip
def test_misconduct_ends_the_run_with_an_error_that_names_peer_and_phase(  # type: ignore[no-untyped-def]
    kind: type, change, phase: str, words: str
) -> None:
    stage = six()
    interpose(stage, BAD, rewriting(kind, change))
    ended = halts(stage)
    assert len(ended) == 5, "nobody goes on alone"
    blamed = [halted for halted in ended if words in halted.problem]
    assert blamed
    assert all(f"phase {halted.phase}" in halted.problem and "step 1" in halted.problem for halted in ended)
    assert all(halted.phase == phase for halted in blamed)
    # From unequal prefixes alone a peer cannot tell who showed whom another message.
    assert (phase == "AGG" and "prefixes" in words) or any(halted.peer == BAD for halted in blamed)


def test_a_part_withheld_is_named_by_its_aggregator() -> None:
    stage = six()

    def rewrite(output: Output) -> Iterable[Output]:
        return [] if isinstance(output, SendBulk) and output.key.step == 1 and output.to == 0 else [output]

    interpose(stage, 4, rewrite)
    named = [found.output for found in play(stage, ()) if isinstance(found.output, Halted) and found.node == 0]
    assert "sent no data" in named[0].problem
    assert named[0].peer == 4


def test_a_part_that_nobody_can_compute_with_ends_the_run_for_now() -> None:
    """In this version a clear error; a ban with the complaints of PROTOCOL section 5."""
    from node.config import Plugin, Role, Schedule
    from tests.simulation.stage import set_up

    role = Role((Plugin("sign_flip", {"scale": float("inf")}),), Schedule(start=1), (BAD,))
    ended = halts(set_up(six().run, {BAD: role}))
    assert {halted.peer for halted in ended} == {BAD}
    assert any("non-finite or enormous" in halted.problem for halted in ended)


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
    assert (peer.past.step, peer.past.parts, peer._ahead) == (3, {}, {})
    assert not any(isinstance(found, CancelTimer | Expelled) for found in peer._out)
