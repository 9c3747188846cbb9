"""What all peers agree on stays as it is, and only mixed environments are given a tolerance for claims."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import pytest

from btard.node.protocol.settings import CROSS_PLATFORM_TOLERANCE, Settings
from tests.protocol_attempts import six


@pytest.fixture(scope="module")
def settings() -> Settings:
    return six().ground().settings


@pytest.mark.parametrize(
    ("recompute_tolerance", "expected"),
    [(0.0, 0.0), (1e-300, CROSS_PLATFORM_TOLERANCE), (1.0, CROSS_PLATFORM_TOLERANCE)],
    ids=["one platform", "the least", "any"],
)
def test_claims_have_a_tolerance_where_gradients_have_one(
    settings: Settings, recompute_tolerance: float, expected: float
) -> None:
    assert replace(settings, recompute_tolerance=recompute_tolerance).claim_tolerance == expected


@pytest.mark.parametrize(("tight", "budgets"), [(False, (None, None)), (True, (0.005, 0.1))], ids=["loose", "tight"])
def test_bounds_that_were_agreed_on_take_the_place_of_the_stated_ones(
    settings: Settings, tight: bool, budgets: tuple[float | None, float | None]
) -> None:
    stated = replace(settings, tight_budgets=tight)
    assert stated.bounded(()) is stated
    found = stated.bounded((250, 1000, 5, 100))
    assert (found.delivery_bound_s, found.gradient_bound_s) == (0.25, 1.0)
    assert (found.budget_delivery_s, found.budget_gradient_s) == budgets


def test_nobody_changes_the_agreed_numbers(settings: Settings) -> None:
    with pytest.raises(FrozenInstanceError):
        settings.steps = 1  # type: ignore[misc]
    assert hash(settings) == hash(replace(settings)), "every number of it is a value"
    assert settings == six().ground().settings, "two peers build the same"
