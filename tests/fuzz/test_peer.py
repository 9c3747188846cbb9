"""An honest Peer under mutated transcripts: it never raises, never halts, and never holds an honest peer guilty."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.arena import Arena
from tests.fuzz.mutations import Source
from tests.fuzz.returning import Returning
from tests.fuzz.scenes import ATTACKER, SCENES, recorded
from tests.simulation.lies import LIES


@pytest.mark.slow
@settings(max_examples=150)
@given(scene=st.integers(0, len(SCENES) - 1), start=st.integers(0, 400), data=st.binary(min_size=8, max_size=400))
def test_a_peer_survives_and_blames_only_the_attacker(scene: int, start: int, data: bytes) -> None:
    arena = Arena(scene, start % len(recorded(scene)))
    source = Source(data)
    while source:
        arena.strike(source)
        arena.go_on(source.pick(8), source.pick(2) == 1)
    assert arena.accused <= {ATTACKER}
    assert not arena.halted


@pytest.mark.slow
@settings(max_examples=150)
@given(start=st.integers(110, 144), data=st.binary(min_size=8, max_size=400))
def test_a_peer_on_its_way_back_survives_its_teachers_and_comes_back(start: int, data: bytes) -> None:
    arena = Returning(start)
    source = Source(data)
    while source:
        arena.strike(source)
        arena.go_on(source.pick(3), source.pick(2) == 1)
    arena.go_on(1000, with_attacker=False)
    assert not arena.accused and not arena.halted
    assert arena.back


@pytest.mark.parametrize("name", sorted(LIES))
def test_every_lie_before_every_lesson_keeps_nobody_out(name: str) -> None:
    arena = Returning()
    number = sorted(LIES).index(name)
    while arena.position < len(arena.tape.told):
        arena.strike(Source(bytes((6, number, 0))))
        arena.go_on(1, with_attacker=False)
    assert arena.back and not arena.halted


def test_a_flood_leaves_a_peer_no_larger_than_an_attack_of_one_of_each() -> None:
    """What is kept is bounded by slots, not by how much is sent."""
    arena = Arena(0, len(recorded(0)) // 2)
    sizes = []
    for turn in range(3):
        for number in range(1500):
            arena.strike(Source(number.to_bytes(2, "little") + bytes([turn]) * 40 + number.to_bytes(2, "big") * 20))
        sizes.append(_kept(arena))
    assert sizes[2] <= 1.2 * sizes[1] + 10_000, sizes


def _kept(arena: Arena) -> int:
    """Bytes of messages that the peer holds."""
    peer = arena.node.peer
    rounds = [round_ for round_ in (peer.shared.round, peer.router.previous.round) if round_ is not None]
    held = sum(len(signed.body) for round_ in rounds for signed in round_.attempt.transcript.everything())
    ahead = sum(len(signed.body) for one in peer.router.admission._ahead.values() for signed in one.values())
    disputes = [one for one in (peer.shared.dispute, peer.router.previous.dispute) if one is not None]
    early = sum(len(view.body) for one in disputes for views in one._early.values() for view in views)
    views = sum(len(view.body) for one in disputes for views in one._broadcast._views.values() for view in views)
    return held + ahead + early + views
