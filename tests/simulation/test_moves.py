"""The moves of the random composer: each is played, what it plays repeats, and a restart loses what a disk loses."""

from __future__ import annotations

from collections import Counter

import pytest

from btard.node.protocol.api import Finished
from tests.adversary.reverted import REVERTED, without
from tests.simulation import soak
from tests.simulation.composer import compose
from tests.simulation.hooked import Hooked
from tests.simulation.mishaps import FATES, STRANGERS
from tests.simulation.moves import MOVES
from tests.simulation.stage import play

WITHIN = 100
"""Seeds among which each move is played."""
ALL = {
    *MOVES,
    *(f"restart: {fate}" for fate in FATES),
    *(f"stranger: {what}" for what in STRANGERS),
    "gradient: up to T_g",
    "gradient: up to D",
    "gradient: blocks the message loop",
}


def simulation(seed: int) -> Hooked:
    found = compose(seed).simulation
    assert isinstance(found, Hooked)
    return found


@pytest.mark.slow
def test_every_move_is_played_within_a_hundred_seeds() -> None:
    """Small runs first; the promises are held to by test_seeds.py."""
    stages = [stage for seed in range(WITHIN) if (stage := compose(seed)).simulation.plan]  # type: ignore[attr-defined]
    seen: Counter[str] = Counter()
    for stage in sorted(stages, key=lambda stage: stage.run.peers * stage.run.steps):
        if not seen.keys() >= ALL:
            play(stage, ())
            assert isinstance(stage.simulation, Hooked)
            seen += stage.simulation.moves
    assert not ALL - seen.keys()


def test_a_seed_plays_the_same_moves_again() -> None:
    """Whatever they are: disks, strangers and the mind draw from the seed alone."""
    seed = next(seed for seed in range(WITHIN) if {"a mind", "restarts"} <= set(simulation(seed).plan))
    told = []
    for _ in range(2):
        stage = compose(seed)
        seen = play(stage, ())
        assert isinstance(stage.simulation, Hooked)
        told.append((stage.simulation.moves, [(each.time_s, each.node, type(each.output)) for each in seen]))
    assert told[0] == told[1]


def test_the_older_composition_has_no_moves() -> None:
    assert not any(isinstance(compose(seed, 1).simulation, Hooked) for seed in range(5))


def test_who_is_killed_is_back_and_finishes() -> None:
    seed = next(seed for seed in range(WITHIN) if simulation(seed).plan == ["restarts"])
    stage = compose(seed)
    seen = play(stage, ())
    assert isinstance(stage.simulation, Hooked)
    assert stage.simulation.again
    finished = {each.node for each in seen if isinstance(each.output, Finished)}
    assert finished >= stage.simulation.again


@pytest.mark.parametrize(
    ("safeguard", "seed"),
    [("a certificate outranks the rest", 26), ("equivocation is judged", 1), ("a dispute freezes its attempt", 2)],
)
def test_without_a_safeguard_the_moves_break_a_promise(safeguard: str, seed: int) -> None:
    """Each is the first such seed with a mind and at most six peers; with the safeguard test_seeds.py plays it."""
    (which,) = [each for each in REVERTED if each.name == safeguard]
    with without(which.patches):
        assert soak.played(seed, 2).problem
