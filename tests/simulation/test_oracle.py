"""The checkers judge by themselves: blind every peer by one mistake in a shared function, and they still see."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import pytest

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.adjudication import charges, judging
from btard.node.protocol.attempt import attempt, gradient_requests
from btard.node.protocol.wire.encoding import decode_body, stub
from btard.node.protocol.wire.messages import Phase
from tests.simulation.checkers import Accountability, Equivocations
from tests.simulation.oracle import contradictory, told
from tests.simulation.stage import Stage, play, run_until, set_up


@dataclass(frozen=True, slots=True)
class Blindness:
    """A function that peers judge with, by what it is replaced, and the attack that nobody notices then."""

    name: str
    places: tuple[object, ...]
    attribute: str
    answer: object
    attack: Plugin
    promise: type[Accountability] | type[Equivocations]
    seen: str


BLIND = (
    Blindness("equal checksums", (attempt,), "same", True, Plugin("lie_checksum"), Accountability, "false checksums"),
    Blindness("a sound gradient", (judging, gradient_requests), "gradient_fault", None,
              Plugin("sign_flip"), Accountability, "false gradient"),
    Blindness("no contradiction", (charges,), "contradict", False,
              Plugin("equivocate", {"phase": "CLOSE", "to": "one"}), Equivocations, "two things"),
)  # fmt: skip


def attacked(attack: Plugin) -> Stage:
    run = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 19}), steps=20, batch_size=1)
    return set_up(run, dict.fromkeys((4, 5), Role((attack,), Schedule(start=1), (4, 5))))


@pytest.mark.slow
@pytest.mark.parametrize("blindness", BLIND, ids=lambda blindness: blindness.name)
def test_a_blind_peer_does_not_blind_its_checker(blindness: Blindness, monkeypatch: pytest.MonkeyPatch) -> None:
    play(attacked(blindness.attack), (blindness.promise,))
    for place in blindness.places:
        monkeypatch.setattr(place, blindness.attribute, lambda *_: blindness.answer)
    with pytest.raises(AssertionError, match=blindness.seen):
        play(attacked(blindness.attack), (blindness.promise,))


def test_both_opinions_of_contradictions_are_the_same() -> None:
    """Of all pairs of messages of two honest runs that differ in their secrets: in one attempt, and across attempts."""
    run = RunConfig(peers=4, task=Plugin("quadratic", {"dimension": 8}), steps=3, batch_size=1)
    signed = []
    for data_seed in (0, 1):
        stage = set_up(RunConfig(**{**{name: getattr(run, name) for name in ("peers", "task", "steps", "batch_size")},
                                    "data_seed": data_seed}))  # fmt: skip
        signed += run_until(stage, 0, 2, "CHECKSUMS").attempt.transcript.everything()
    own = [each for each in signed if decode_body(each.body).slot.sender == 1]
    assert {decode_body(each.body).slot.phase for each in own} >= {Phase.COMMIT, Phase.AGG, Phase.REVEAL}
    pairs = list(product(own, own))
    found = [charges.contradict(stub(one), stub(other)) for one, other in pairs]
    assert found == [contradictory(told(one.body), told(other.body)) for one, other in pairs]
    assert judging.equivocation is charges.equivocation
