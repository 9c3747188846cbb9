"""Tensors at the last instant, and lies that accomplices vouch for: `play` holds every run to the promises."""

from __future__ import annotations

import pytest

from btard.node.config import Plugin, Schedule
from tests.simulation.attacked import START, configuration, play

BOTH = (4, 5)


def of(reason: str, peers: tuple[int, ...]) -> list[tuple[int, int, str]]:
    return [(START, peer, reason) for peer in peers]


@pytest.mark.slow
@pytest.mark.parametrize("before_s", [0.005, 0.02, 0.1])
@pytest.mark.parametrize("kind", ["part", "aggregate"])
def test_a_tensor_at_the_last_instant_of_the_wait_is_taken_or_complained_of(kind: str, before_s: float) -> None:
    """Either way everyone goes on together, and nobody is suspected."""
    story = play([Plugin("late_bulk", {"kind": kind, "before_s": before_s})])
    assert story.attacked[5] == [START]
    assert story.removed == []
    assert not story.disputes and not story.suspected


def test_a_publication_at_the_last_instant_to_half_is_pulled_or_costs_its_sender() -> None:
    """Its part was withheld, complained of, and is published late: f + 1 HAVE bits decide."""
    attacks = [Plugin("withhold_part", {"to": "one"}), Plugin("late_bulk", {"kind": "publication", "to": "half"})]
    story = play(attacks)
    assert story.removed in ([], of("withheld", (5,)))
    assert (START, 0, "HELD") in story.phases


def test_an_aggregate_at_the_last_instant_to_one_alone_is_its_end() -> None:
    story = play([Plugin("late_bulk", {"kind": "aggregate", "others": "never"})])
    assert story.removed == of("withheld", (5,))


@pytest.mark.parametrize("to", ["one", "half", "all_but_one"])
def test_two_attackers_that_take_different_favourites_split_nobody(to: str) -> None:
    """Each complaint is an edge; in one step no peer gets more than f of them."""
    attacks = [Plugin("late_bulk", {"to": to, "apart": True, "others": "never"})]
    story = play(attacks, BOTH, schedule=Schedule(start=START, stop=START + 1), run=configuration())
    assert {reason for _, _, reason in story.removed} <= {"edges"}
    assert {peer for _, peer, _ in story.removed} <= set(BOTH)


def test_accomplices_that_vouch_for_a_lie_fall_with_the_liar() -> None:
    """V1 is silent, but the checksums do not add up: everyone recomputes the part (V2)."""
    story = play([Plugin("lie_checksum", {"covered": True})], BOTH)
    assert (START, "averaging:V2") in story.charges
    assert {row[:2] for row in story.removed} == {(START, 4), (START, 5)}
    assert {reason for _, _, reason in story.removed} <= {"checksum", "false_report"}


def test_whoever_goes_on_alone_and_shows_no_view_is_gone() -> None:
    """Peer 5 keeps its REVEAL to itself, goes on, and says nothing in the dispute: from outside it looks like a peer
    that was cut off in between, and may not be called a liar for it."""
    attacks = [Plugin("withhold_reveal", {"biased": True}), Plugin("stall", {"phase": "VIEW"})]
    story = play(attacks, schedule=Schedule(start=1), run=configuration(steps=6), seed=2)
    assert story.removed == [(2, 5, "silent")]
