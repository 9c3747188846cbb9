"""Views that hold what no honest view holds: they cost little, and nobody but their owner comes to harm."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

import msgspec
import pytest

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer, verify
from btard.node.protocol.api import Banned, Committed, Dropped, Finished, Output, Say, ViewArrived
from btard.node.protocol.disputes.resolution import ViewMerge
from btard.node.protocol.wire.encoding import decode_body, encode_body, signing_bytes
from btard.node.protocol.wire.messages import (
    Body,
    Commit,
    Endorsed,
    Phase,
    Publish,
    Signed,
    Suspect,
    View,
    view_bytes,
    view_messages,
)
from tests.simulation.hostile import interpose
from tests.simulation.stage import play, set_up
from tests.unit.node.protocol.test_router import Case

PEERS, BAD = 5, 4
RUN = RunConfig(peers=PEERS, task=Plugin("quadratic", {"dimension": 10}), steps=3, batch_size=1)
MEMBERS, SECRETS = generate(0, PEERS)


def signed(body: Body) -> Signed:
    data = encode_body(body)
    return Signed(data, Signer(bytes.fromhex(SECRETS[BAD].signing_seed)).sign(signing_bytes(body, data)))


def forged(view: View, count: int, phase: Phase = Phase.PUBLISH) -> tuple[Signed, ...]:
    """Bodies of the attempt that fit their slots, but that their senders have not signed."""
    slot = msgspec.structs.replace(view.slot, phase=phase, sender=0)
    return tuple(Signed(encode_body(Publish(slot, (bytes([number]),))), bytes(64)) for number in range(count))


def commits(view: View, count: int) -> tuple[Signed, ...]:
    slot = msgspec.structs.replace(view.slot, phase=Phase.COMMIT)
    return tuple(signed(Commit(slot, (), (), bytes([number]) * 32)) for number in range(count))


JUNK: dict[str, Callable[[View], tuple[Signed, ...]]] = {
    "forged first": lambda view: (*forged(view, 9), *view.messages),
    "forged last": lambda view: (*view.messages, *forged(view, 9)),
    "no messages": lambda view: (Signed(b"junk", b""), *view.messages),
    "nothing": lambda view: (),
    "many for one slot": lambda view: (*view.messages, *commits(view, 20)),
    "the same ones again and again": lambda view: view.messages * 20,
    "of a dispute": lambda view: (signed(View(view.slot, (), ())), *view.messages),
    "more than anyone can hold": lambda view: (view.messages * 400)[: view_messages(PEERS) + 1],
}


@pytest.mark.parametrize("junk", sorted(JUNK))
def test_a_view_full_of_junk_convicts_its_owner_and_nobody_else(junk: str) -> None:
    """It shows two COMMITs, so that all dispute; in the dispute it shows a view of its own making."""
    stage = set_up(RUN)
    shown: list[int] = []

    def rewrite(output: Output) -> Iterable[Output]:
        if not isinstance(output, Say) or output.body.slot.step != 1:
            return [output]
        if isinstance(output.body, Commit):
            return [
                Say((0, 1), output.body),
                Say((2, 3, BAD), msgspec.structs.replace(output.body, randomness=bytes(32))),
            ]
        if isinstance(output.body, View):
            messages = JUNK[junk](output.body)
            shown.append(len(messages))
            return [Say(output.to, msgspec.structs.replace(output.body, messages=messages))]
        return [output]

    interpose(stage, BAD, rewrite)
    seen = [each for each in play(stage, ()) if each.node != BAD]
    assert shown
    assert {each.output.peer for each in seen if isinstance(each.output, Banned)} == {BAD}
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(BAD))
    states = {(each.output.step, each.output.state_digest) for each in seen if isinstance(each.output, Committed)}
    assert len(states) == RUN.steps + 1


ATTACKS = [
    Plugin("equivocate", {"phase": "CHECKSUMS"}), Plugin("equivocate", {"phase": "CLOSE"}), Plugin("false_prefix"),
    Plugin("malformed"), Plugin("malformed", {"how": "type"}), Plugin("stall", {"phase": "REVEAL"}), Plugin("complain"),
]  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS, ids=[f"{each.name} {each.parameters}" for each in ATTACKS])
def test_an_honest_view_holds_nothing_that_would_end_its_reading(attack: Plugin) -> None:
    """Validly signed messages of the attempt, two for a slot, no more than the bound: whatever started the dispute."""
    stage = set_up(RUN, {BAD: Role((attack,), Schedule(start=1), (BAD,))})
    views: list[View] = []

    def listen(output: Output) -> Iterable[Output]:
        if isinstance(output, Say) and isinstance(output.body, View):
            views.append(output.body)
        return [output]

    for peer in range(BAD):
        interpose(stage, peer, listen)
    play(stage, ())
    assert views
    for view in views:
        assert len(view.messages) <= view_messages(PEERS)
        counts: Counter[object] = Counter()
        for word in view.messages:
            body = decode_body(word.body)
            slot = body.slot
            assert (slot.run, slot.roster, slot.step, slot.attempt) == (
                view.slot.run, view.slot.roster, view.slot.step, view.slot.attempt)  # fmt: skip
            assert verify(
                bytes.fromhex(MEMBERS[slot.sender].signing_key), signing_bytes(body, word.body), word.signature
            )
            counts[(slot, body.named, body.peer) if isinstance(body, Suspect) else slot] += 1
        assert max(counts.values()) <= 2


def test_the_union_checks_one_forged_signature_of_a_view() -> None:
    case, asked = Case(), list[bytes]()
    attempt = copy.copy(case.attempt)

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return False

    attempt.tools = replace(attempt.tools, verify=check)
    view = View(attempt.slot(Phase.VIEW, 1), (), ())
    ViewMerge([forged(view, 200), forged(view, 100, Phase.PUBLISH)[::-1]], (1, 2), {}, attempt, None)
    assert len(asked) == 2


def test_the_union_reads_two_messages_for_a_slot() -> None:
    """Of all the COMMITs that a liar can sign, two convict it; the rest is not looked at."""
    case, asked = Case(), list[bytes]()
    attempt = copy.copy(case.attempt)

    def check(public: bytes, message: bytes, signature: bytes) -> bool:
        asked.append(message)
        return True

    attempt.tools = replace(attempt.tools, verify=check)
    slot = attempt.slot(Phase.COMMIT, 1)
    words = tuple(Signed(encode_body(Commit(slot, (), (), bytes([number]) * 32)), b"") for number in range(100))
    union = ViewMerge([words], (1,), {}, attempt, None)
    assert len(asked) == 3
    assert [word for _, word in union.admitted()] == [words[0], words[1]]


def _view_of(case: Case, messages: tuple[Signed, ...]) -> ViewArrived:
    return ViewArrived(3, Endorsed(case.signed(View(case.slot(Phase.VIEW), (), messages)), ()))


def test_a_view_with_too_many_messages_is_refused_and_one_of_junk_is_left_at_once() -> None:
    """Both fit into the bound in bytes."""
    case = Case()
    peers = len(case.attempt.roster.keys)
    junk = forged(View(case.slot(Phase.VIEW), (), ()), 200)
    event = _view_of(case, (junk * 100)[: view_messages(peers) + 1])
    assert len(event.endorsed.view.body) < view_bytes(peers)
    assert case.peer.handle(event) == [Dropped(3, "oversized")]
    event = _view_of(case, (junk * 100)[: view_messages(peers)])
    assert case.peer.handle(event) == [Dropped(3, "bad_signature")]


@pytest.mark.parametrize("peers", [2, 4, 64, 256])
def test_the_bound_has_room_for_two_in_every_slot_all_suspicions_and_a_trigger(peers: int) -> None:
    phases = [phase for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value]
    slots = [(phase, sender) for phase in phases for sender in range(peers)]
    suspects = sum(1 for _, named in slots for by in range(peers) if by != named)
    assert 2 * len(slots) + suspects + 1 <= view_messages(peers)
