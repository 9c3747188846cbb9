"""Each attack that once broke a promise, played again: the promise holds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from btard.node.protocol.api import Accused, Banned
from tests.adversary import swift
from tests.adversary.cluster import Size
from tests.adversary.known import KNOWN, Known
from tests.adversary.play import play, story


@pytest.fixture(autouse=True)
def remembering() -> Iterator[None]:
    swift.swift()
    yield
    swift.slow()


def test_a_close_shown_only_in_the_dispute_is_silence_in_the_next_report() -> None:
    """A view makes the certificate, which wins; without the suspicions it could do so again in every step."""
    played = play(Size(4, 1), "near,c,@CLOSE1,hold:3:CLOSE:012,<Suspected,give:3:CLOSE:0,@VIEW1,hold:3:VIEW:012")
    assert played.broken is None, story(played)
    told = [notice for _, _, notice in played.world.notices]
    assert {(note.step, note.kind) for note in told if isinstance(note, Accused)} == {(2, "silence:CLOSE")}
    assert {(note.step, note.peer, note.reason) for note in told if isinstance(note, Banned)} == {(2, 3, "silent")}


@pytest.mark.parametrize("attack", KNOWN, ids=lambda attack: attack.name)
def test_a_known_attack_breaks_nothing(attack: Known) -> None:
    played = play(attack.size, attack.line)
    assert played.broken is None, story(played)
