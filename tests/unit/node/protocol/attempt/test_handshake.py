"""The beginning of a run: who has to be there, and what a liar's HELLO can do."""

from __future__ import annotations

import msgspec
import pytest

from btard.node.protocol.api import DeadlinePassed, Dropped, Halted, MessageArrived, Output, PhaseEntered, Start
from btard.node.protocol.attempt.deadlines import HELLO
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Hello, Phase
from tests.fuzz.arena import Arena
from tests.fuzz.scenes import ATTACKER, recorded

GREETINGS = [event for event in recorded(0)[:3] if isinstance(event, MessageArrived)]


def test_a_refusal_names_what_differs() -> None:
    (halt,) = (output for output in begin((1, 2), ()) if isinstance(output, Halted))
    assert "(its fingerprint cannot be read: another release?); use hardware" in str(halt)


def begin(odd: tuple[int, ...], silent: tuple[int, ...]) -> list[Output]:
    """What peer 0 of four answers when `odd` say another environment and `silent` nothing before the deadline."""
    arena = Arena(0, 0)
    told: list[Output] = []
    perform = arena._perform
    arena._perform = lambda output: (told.append(output), perform(output))[1]  # type: ignore[method-assign]
    arena.feed(Start())
    for event in GREETINGS:
        hello = decode_body(event.signed.body)
        assert isinstance(hello, Hello)
        sender = hello.slot.sender
        if sender in odd:
            hello = msgspec.structs.replace(hello, fingerprint=b"another machine")
        if sender not in silent:
            arena.feed(MessageArrived(sender, arena.signed(hello, sender)))
    arena.feed(DeadlinePassed(HELLO))
    return told


@pytest.mark.parametrize(
    ("odd", "silent", "starts"),
    [((), (), True), ((ATTACKER,), (), True), ((), (ATTACKER,), True), ((1, 2), (), False), ((), (1, 2), False)],
    ids=["all alike", "one odd", "one silent", "we are odd", "no quorum"],
)
def test_up_to_f_peers_cannot_keep_a_run_from_starting(
    odd: tuple[int, ...], silent: tuple[int, ...], starts: bool
) -> None:
    told = begin(odd, silent)
    entered = [output.phase for output in told if isinstance(output, PhaseEntered)]
    assert (Phase.COMMIT.name in entered) == starts
    assert any(isinstance(output, Halted) for output in told) != starts
    assert {output.via for output in told if isinstance(output, Dropped) and output.reason == "odd_environment"} == (
        set(odd) if starts else set()
    )
