"""With each safeguard taken away the search finds a broken promise; with it, the same search finds none for a while."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest

from tests.adversary import swift
from tests.adversary.reverted import REVERTED, Reverted, control, search, without

CONTROL = 30
"""Runs at most of the same search with the safeguard in place; `make explore` does many more."""


@pytest.fixture(autouse=True)
def remembering() -> Iterator[None]:
    swift.swift()
    yield
    swift.slow()


@pytest.mark.slow
@pytest.mark.parametrize("which", REVERTED, ids=lambda which: which.name.replace(" ", "_"))
def test_without_a_safeguard_a_promise_breaks(which: Reverted) -> None:
    with without(which.patches):
        found = search(which, math.inf)
    assert found.broken, f"{len(found.states)} states and {found.runs} runs without a broken promise"
    # As it is, the first of these runs break nothing: what was found is the missing safeguard's.
    kept = search(control(which, min(found.runs, CONTROL)), math.inf)
    assert kept.runs and not kept.broken, f"with the safeguard too: {kept.broken}"
