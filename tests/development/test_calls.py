"""How many functions a peer calls in an honest step is a promise, and no loop over all pairs of peers is among them."""

from __future__ import annotations

import pytest

from tests.development.calls import STEPS, counted

MOST = 2_500


@pytest.fixture(scope="module")
def of_six() -> float:
    return counted(6).python / STEPS


def test_a_step_of_six_peers_calls_few_functions(of_six: float) -> None:
    assert 1_000 < of_six <= MOST


def test_calls_grow_with_the_peers_and_not_with_their_square(of_six: float) -> None:
    assert counted(12).python / STEPS <= 2.3 * of_six
