"""A hundred random runs, every promise checked after every step."""

from __future__ import annotations

import pytest

from tests.simulation.checkers import PROMISES
from tests.simulation.scenario import scenario
from tests.simulation.stage import play

SEEDS = 100


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_promise_holds_after_every_step(seed: int) -> None:
    try:
        play(scenario(seed), PROMISES)
    except BaseException as error:
        error.add_note(f"replay: python -m tests.simulation.scenario {seed}")
        raise
