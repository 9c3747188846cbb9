"""Attackers that choose when, on the simulator: which steps they attack, and what that is worth to them."""

from __future__ import annotations

import pytest

from btard.node.adversary.timing import CONDITIONS
from btard.node.config import Plugin, RunConfig, Schedule
from tests.simulation.attacked import Story, configuration, play

ATTACKERS = (4, 5)
FIRST, WINDOW = 3, 5


def story(schedule: Schedule, seed: int, run: RunConfig) -> Story:
    return play([Plugin("sign_flip")], ATTACKERS, schedule=schedule, run=run, seed=seed)


def last_step(seen: Story, peer: int, run: RunConfig) -> int:
    """The last step that a peer could contribute to."""
    return next((step for step, banned, _ in seen.removed if banned == peer), run.steps - 1)


def convicted(seen: Story, peer: int, step: int) -> bool:
    """An honest peer validates, in this step, what the peer did in the one before."""
    return any(target == peer and validator not in ATTACKERS for validator, target in seen.validators[step].items())


@pytest.mark.parametrize("seed", range(3))
def test_together_they_attack_in_the_steps_to_which_all_that_are_left_contribute(seed: int) -> None:
    """The step before drew who validates, so they know; one that is out at the step's end has nothing to lose."""
    run = configuration(steps=40)
    seen = story(Schedule(start=FIRST, when="together"), seed, run)
    assert len(seen.removed) == 2
    for peer in ATTACKERS:
        for step in range(FIRST, last_step(seen, peer, run) + 1):
            away = {other for other in ATTACKERS if other in seen.validators[step]}
            lost = convicted(seen, peer, step) and step - 1 in seen.attacked[peer]
            assert (step in seen.attacked[peer]) == (not away or (lost and peer not in away)), step
        assert max(seen.attacked[peer]) <= last_step(seen, peer, run)


@pytest.mark.parametrize("when", ["beyond_undo", "together&beyond_undo"])
@pytest.mark.parametrize("seed", [0, 1])
def test_beyond_undo_a_conviction_takes_back_one_attack_and_those_before_it_stay(seed: int, when: str) -> None:
    run = configuration(steps=60, undo=WINDOW)
    seen = story(Schedule(start=FIRST, when=when), seed, run)
    assert len(seen.removed) == 2
    for ended, peer, reason in seen.removed:
        assert reason == "gradient"
        if ended in seen.undone:
            continue  # an accomplice's undo step, in which the window does not move on
        undone, attacked = seen.undone[ended + 1], seen.attacked[peer]
        given_up = {step for step in attacked if step in (ended - 1, ended)}
        assert {step for step, owner in undone.lies if owner == peer} == given_up
        assert ended - 1 in given_up
        kept = sorted(set(attacked) - given_up)
        assert undone.to_step is not None
        assert all(step < undone.to_step for step in kept)
    assert any(len(attacked) > 2 for attacked in seen.attacked.values()), "some of it stays"


@pytest.mark.parametrize("seed", [2, 3])
def test_beyond_undo_they_wait_no_longer_than_they_must(seed: int) -> None:
    """A step earlier than `WINDOW - 1` steps after an attack, conviction would take it back too."""
    run = configuration(steps=60, undo=WINDOW)
    seen = story(Schedule(start=FIRST, when="beyond_undo"), seed, run)
    calm = min(step for step, *_ in seen.removed)
    for peer in ATTACKERS:
        due, before = FIRST, [step for step in seen.attacked[peer] if step < calm]
        for step in before:
            assert step == next(each for each in range(due, run.steps) if peer not in seen.validators[each])
            due = step + WINDOW - 1


@pytest.mark.parametrize("seed", [0, 1])
def test_in_every_step_all_that_they_do_is_taken_back(seed: int) -> None:
    """Those that wait are better off."""
    run = configuration(steps=60, undo=32)
    seen = story(Schedule(start=FIRST), seed, run)
    assert len(seen.removed) == 2
    back = [(undone.to_step, undone.step) for undone in seen.undone.values() if undone.to_step is not None]
    for step in {step for attacked in seen.attacked.values() for step in attacked}:
        assert any(first <= step < undo for first, undo in back), step


def test_without_undo_there_is_nothing_to_wait_for() -> None:
    run = configuration(steps=20)
    every, waiting = (story(Schedule(start=FIRST, when=when), 1, run) for when in ("always", "beyond_undo"))
    assert every.attacked == waiting.attacked
    assert every.digests == waiting.digests


def test_the_last_step_has_its_verdict_and_is_taken_back_too() -> None:
    """An attack in the very last step leaves the attacker no later one to be caught in, and costs it the same odds."""
    run = configuration(steps=6, undo=WINDOW)
    ends = {"convicted": 0, "free": 0}
    for seed in range(8):
        seen = story(Schedule(start=run.steps - 1), seed, run)
        gone = [peer for _, peer, _ in seen.removed]
        lies = [lie for undone in seen.undone.values() for lie in undone.lies]
        assert lies == [(run.steps - 1, peer) for peer in gone]
        assert {step for step, *_ in seen.removed} <= {run.steps}
        assert all(undone.to_step == run.steps - 1 for undone in seen.undone.values())
        ends["convicted" if gone else "free"] += 1
    assert min(ends.values()) > 0, ends


def test_all_conditions_are_tried_here() -> None:
    assert set(CONDITIONS) == {"together", "beyond_undo"}
