"""Each attack that once broke a promise, played again: the promise holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adversary import swift
from tests.adversary.known import KNOWN, Known
from tests.adversary.play import play, story


@pytest.fixture(autouse=True)
def remembering() -> Iterator[None]:
    swift.swift()
    yield
    swift.slow()


@pytest.mark.parametrize("attack", KNOWN, ids=lambda attack: attack.name)
def test_a_known_attack_breaks_nothing(attack: Known) -> None:
    played = play(attack.size, attack.line)
    assert played.broken is None, story(played)
