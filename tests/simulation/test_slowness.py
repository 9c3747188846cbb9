"""Slowness for ever: what attackers that nobody suspects cost in virtual time, and what becomes of them."""

from __future__ import annotations

import pytest

from btard.node.config import Plugin, RunConfig, Schedule
from tests.simulation.attacked import configuration, play
from tests.simulation.slowness import BOTH, CASES, TASK, pace

ALWAYS = Schedule(start=0)
STEPS, SKIPPED = 40, 20
HONEST_S = pace((), STEPS, SKIPPED).mean_s


@pytest.mark.slow
@pytest.mark.parametrize("name", ["just_in_time", "just_in_time, tensors too"])
def test_two_that_say_everything_just_before_the_deadline_are_gone_alone(name: str) -> None:
    found = pace(CASES[name], STEPS, SKIPPED)
    assert found.removed == tuple((11, peer, "late") for peer in BOTH)
    assert found.mean_s < 10 * HONEST_S < found.first_s


@pytest.mark.slow
@pytest.mark.parametrize("name", ["split_aggregate", "split_aggregate to one"])
def test_bytes_unlike_their_digest_cost_a_pull_and_then_their_sender(name: str) -> None:
    """Before anybody leaves, too: nobody waits for what cannot come."""
    found = pace(CASES[name], STEPS, SKIPPED)
    assert {peer for _, peer, _ in found.removed} >= set(BOTH)
    assert max(found.mean_s, found.first_s) < 2 * HONEST_S


def test_within_all_budgets_a_step_takes_what_the_documentation_states() -> None:
    """40 D + 2 T_g: the worst that nobody answers for."""
    run = RunConfig(peers=6, steps=12, batch_size=2, task=TASK)
    found = pace(CASES["just_in_time within budgets, tensors too"], 12, 0, run)
    stated_s = 40 * run.delivery_bound_s + 2 * run.gradient_bound_s
    assert found.removed == ()
    assert 0.95 * stated_s < found.mean_s < stated_s + HONEST_S


@pytest.mark.parametrize("attack", [Plugin("just_in_time"), Plugin("just_in_time", {"tensors": True})])
def test_every_promise_holds_beside_it(attack: Plugin) -> None:
    story = play([attack], BOTH, schedule=ALWAYS, run=configuration(steps=14))
    assert [(peer, reason) for _, peer, reason in story.removed] == [(peer, "late") for peer in BOTH]
    assert not story.disputes and not story.suspected


def test_whoever_makes_one_peer_alone_late_leaves_with_it() -> None:
    """Everyone waits for peer 0, which waits for an aggregate: the edge is between these two."""
    attack = Plugin("late_bulk", {"kind": "aggregate", "to": "@0", "before_s": 0.3})
    story = play([attack], (5,), schedule=ALWAYS, run=configuration(steps=14), honest_lost=1)
    assert story.removed == [(11, 0, "eliminated"), (11, 5, "eliminated")]


def test_a_few_late_steps_are_forgiven() -> None:
    story = play([Plugin("just_in_time")], BOTH, schedule=Schedule(start=0, stop=10), run=configuration(steps=14))
    assert story.removed == []
