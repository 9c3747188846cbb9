"""Disputes of two steps at a time: one attacker gives some peers what the others lack, and both a reason to dispute."""

from __future__ import annotations

import pytest

from btard.node.config import Plugin, Schedule
from tests.simulation.attacked import START, configuration, play

ONCE = Schedule(start=START, stop=START + 1)


@pytest.mark.slow
@pytest.mark.parametrize("before_s", [0.005, 0.05, 0.3])
@pytest.mark.parametrize("to", ["one", "two", "half", "all_but_one"])
@pytest.mark.parametrize("peers", [4, 5, 6, 7])
def test_two_camps_end_the_step_alike(peers: int, to: str, before_s: float) -> None:
    """Each camp has a dispute of its own, and the attackers sign what each of them decides."""
    attackers = tuple(range(peers - (peers + 1) // 2 + 1, peers))
    story = play([Plugin("two_camps", {"to": to, "before_s": before_s})], attackers, schedule=ONCE,
                 run=configuration(peers=peers, steps=START + 4))  # fmt: skip
    assert attackers[0] in {peer for _, peer, _ in story.removed}
