"""The explorer itself: honest worlds, copies, names, moves, replays, and an oracle that knows each broken promise."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
import torch

from btard.node.protocol.api import Banned, BulkArrived, Committed, Expelled, Finished, Halted, Input, Output, Voided
from btard.node.protocol.peer import Peer
from tests.adversary import swift
from tests.adversary.cluster import Size
from tests.adversary.disk import Disk
from tests.adversary.explore import base, explore, line, shrink
from tests.adversary.guided import guide
from tests.adversary.moves import LINKS, act, menu
from tests.adversary.oracle import violation
from tests.adversary.play import advance, play, story
from tests.adversary.reverted import REVERTED, without
from tests.adversary.snapshot import Snapshot, names
from tests.adversary.world import Style, World

SIZES = (Size(4, 1), Size(5, 2), Size(6, 2))


@pytest.fixture(autouse=True)
def remembering() -> Iterator[None]:
    swift.swift()
    yield
    swift.slow()


def ended(world: World) -> World:
    while not world.over:
        world.go()
    return world


# --- honest worlds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", LINKS)
def test_puppets_that_do_everything_right_break_nothing(links: str) -> None:
    world = ended(World(Size(6, 2), Style(links=links)))
    assert violation(world, True) is None
    assert sum(isinstance(notice, Finished) for _, _, notice in world.notices) == 4


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"n={size.peers}")
def test_a_restart_at_any_instant_of_an_honest_step_breaks_nothing(size: Size) -> None:
    first, waited = base(size, ["near", "c"], True)
    snapshot = Snapshot.of(first)
    for instants in range(0, 10, 3):
        world = snapshot.world()
        for _ in range(instants):
            world.go()
        assert act(world, "kill:0:0")
        assert violation(ended(world), True) is None, f"+{waited + instants},kill:0:0"


def test_what_is_remembered_changes_nothing() -> None:
    text = "near,c,@CLOSE1,hold:3:CLOSE:012,<Suspected,give:3:CLOSE:0,trip:3:1"
    fast = story(play(Size(4, 1), text))
    swift.slow()
    assert story(play(Size(4, 1), text)) == fast


# --- copies and names -------------------------------------------------------------------------------------------------


def test_a_copy_goes_on_as_the_world_does_and_leaves_it_alone() -> None:
    world, _ = base(Size(4, 1), ["near", "c"], False)
    snapshot = Snapshot.of(world)
    ended(snapshot.world())
    here = names(snapshot.world())
    assert here == names(world)
    both = [(names(one), names(other)) for one, other in _together(world, snapshot.world())]
    assert all(one == other for one, other in both)
    assert len({one for one, _ in both}) == len(both)


def _together(one: World, other: World) -> Iterator[tuple[World, World]]:
    while not one.over:
        one.go()
        other.go()
        yield one, other


def test_a_name_does_not_depend_on_when_it_is() -> None:
    world, _ = base(Size(4, 1), ["near", "c"], False)
    later = Snapshot.of(world).world()
    shift = 5_000_000
    later.now += shift
    later.heap = [(time_ + shift, *rest) for time_, *rest in later.heap]  # type: ignore[misc]
    later.timers = {timer: (due + shift, number) for timer, (due, number) in later.timers.items()}
    assert names(later) == names(world)


def test_a_message_more_is_another_state() -> None:
    world, _ = base(Size(4, 1), ["near", "c"], False)
    other = Snapshot.of(world).world()
    assert act(other, "trip:3:0")
    assert names(other) != names(world)


# --- moves ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"n={size.peers}")
def test_every_move_of_the_menu_can_be_made(size: Size) -> None:
    world, _ = base(size, ["near", "c"], True)
    verbs = set()
    for _ in range(6):
        snapshot = Snapshot.of(world)
        words = menu(world, kills=True)
        assert len(set(words)) == len(words)
        for word in words[:: 1 + len(words) // 40]:
            assert act(snapshot.world(), word), word
        verbs |= {word.split(":")[0] for word in words}
        for _ in range(2):
            world.go()
    assert verbs >= {"hold", "twin", "both", "bad", "odd", "trip", "view", "susp", "fate", "votes", "kill"}


def test_peers_treated_alike_are_one_choice() -> None:
    world, _ = base(Size(6, 2), ["near", "c"], False)
    reduced, everything = menu(world), menu(world, everything=True)
    assert set(reduced) < set(everything)
    assert act(world, next(word for word in everything if word.startswith("trip:5:0") and word.count("0") == 1))
    assert len(menu(world)) > len(reduced)


def test_a_line_replays_what_a_search_did() -> None:
    found, _ = guide(Size(4, 1), 3, 4, math.inf)
    assert found.runs == 4
    style, trail = ["near", "c"], ("+9", "+1", "hold:3:COMMIT:0", "+1", "+1", "give:3:COMMIT:0")
    text = line(style, trail)
    assert text == "near,c,+10,hold:3:COMMIT:0,+2,give:3:COMMIT:0"
    assert play(Size(4, 1), text).ignored == play(Size(4, 1), text).ignored


# --- the oracle -------------------------------------------------------------------------------------------------------


def _honest_end() -> World:
    return ended(World(Size(4, 1), Style()))


def _changed(world: World, kind: type, me: int, **fields: object) -> World:
    """One peer's last notice of a kind, changed."""
    place = max(place for place, (_, who, notice) in enumerate(world.notices) if who == me and isinstance(notice, kind))
    now, who, notice = world.notices[place]
    world.notices[place] = now, who, replace(notice, **fields)  # type: ignore[type-var]
    return world


def _with(world: World, *notices: object) -> World:
    world.notices += [(world.now, 1, notice) for notice in notices]  # type: ignore[misc]
    return world


_BAN = Banned(1, 0, 3, "malformed", None, True, b"")


@pytest.mark.parametrize(("broken", "kind"), [
    (lambda world: _changed(world, Committed, 1, parameters_D=torch.ones(4)), "fork"),
    (lambda world: _changed(world, Committed, 1, active=(0, 1, 2)), "fork"),
    (lambda world: _changed(world, Finished, 1, parameters_D=torch.ones(4)), "fork"),
    (lambda world: _with(world, _BAN), "fork"),
    (lambda world: _with(world, replace(_BAN, peer=0)), "removal"),
    (lambda world: _with(world, Expelled(1, "silent")), "removal"),
    (lambda world: _with(world, Halted(1, "COMMIT", None, "no quorum")), "halt"),
    (lambda world: _with(world, Voided(1, 0, ())), "fork"),
])  # fmt: skip
def test_the_oracle_knows_each_broken_promise(broken: object, kind: str) -> None:
    world = broken(_honest_end())  # type: ignore[operator]
    found = violation(world, True)
    assert found is not None
    assert found.split(":")[0] == kind


def test_the_oracle_knows_who_never_finishes_and_who_raises() -> None:
    world = _honest_end()
    world.notices = [(now, me, notice) for now, me, notice in world.notices
                     if not (me == 2 and isinstance(notice, Finished))]  # fmt: skip
    assert violation(world, False) is None
    assert violation(world, True) == "liveness: peers [2] never finish"
    world.crash = "peer 0 raised KeyError"
    assert violation(world, False) == "crash: peer 0 raised KeyError"


def test_an_elimination_of_an_honest_peer_breaks_nothing() -> None:
    world = _honest_end()
    for me in world.honest:
        world.notices.append((world.now, me, replace(_BAN, reason="eliminated", peer=0)))
    assert violation(world, False) is None


def test_an_exception_in_an_honest_peer_is_found() -> None:
    def broken(*_: object) -> None:
        raise KeyError("x")

    with without((("btard.node.protocol.attempt.lifecycle.AttemptLifecycle._commit", lambda _: broken),)):
        world = World(Size(4, 1), Style())
        found = None
        while found is None and not world.over:
            found = advance(world)
    assert found is not None
    assert found.startswith("crash: peer ")
    assert "KeyError" in found


def test_a_peer_that_does_not_come_back_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(*_: object) -> bool:
        return True

    monkeypatch.setattr("tests.adversary.world.PATIENCE_S", 0.2)
    with without((("btard.node.protocol.attempt.round.Round.advance", lambda _: endless),)):
        found = play(Size(4, 1), "near,c").broken
    assert found is not None
    assert "EndlessError" in found


# --- searches ---------------------------------------------------------------------------------------------------------


def test_a_search_of_no_deviations_is_one_run_of_distinct_states() -> None:
    found = explore(Size(4, 1), ["near", "c"], 0, 10**6, math.inf)
    assert (found.runs, found.broken, found.complete) == (1, [], True)
    assert len(found.states) > 20


def test_shares_of_a_search_come_to_the_whole() -> None:
    prefix = "near,c,@CLOSE3"
    search = partial(explore, Size(4, 1), ["near", "c"], 1, 10**6, math.inf, prefix=prefix)
    whole, parts = search(), [search(share=(which, 3)) for which in range(3)]
    assert whole.complete
    assert set.union(*(part.states for part in parts)) == whole.states


def test_the_same_seed_finds_the_same() -> None:
    first, second = (guide(Size(4, 1), 5, 6, math.inf) for _ in range(2))
    assert first[0].events == second[0].events
    assert first[1].covered == second[1].covered


def test_a_patch_is_undone() -> None:
    paths = [path for each in REVERTED for path, _ in each.patches]
    before = [_value(path) for path in paths]
    with without(tuple(patch for each in REVERTED for patch in each.patches)):
        assert all(_value(path) is not kept for path, kept in zip(paths, before, strict=True))
    assert [_value(path) for path in paths] == before


def _value(path: str) -> object:
    from tests.adversary.reverted import _owner

    owner, name = _owner(path)
    return vars(owner)[name]


def test_what_is_not_needed_is_dropped_from_a_line() -> None:
    def broken(*_: object) -> None:
        raise KeyError("suspected")

    text = "near,c,@CLOSE1,view:5:0:1full,susp:5:0,trip:5:1"
    with without((("btard.node.protocol.attempt.round.Round._suspected", lambda _: broken),)):
        assert (play(Size(6, 2), text).broken or "").startswith("crash")
        *_, shortest = shrink(Size(6, 2), text, "crash")
    assert shortest == "near,c,@CLOSE1,susp:5:0"


def test_a_peer_that_has_the_outcome_but_can_not_get_its_bytes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Started again in a dispute with nothing but messages on its disk, and with links that carry no tensor to it."""
    deliver, keep = World._deliver, Disk.keep

    def without_tensors(world: World, sender: int, to: int, event: Input) -> None:
        if not (to in world.restarted and isinstance(event, BulkArrived)):
            deliver(world, sender, to, event)

    def messages_alone(disk: Disk, peer: Peer, outputs: list[Output]) -> None:
        before = len(disk._log)
        keep(disk, peer, outputs)
        disk._log[before:] = [entry for entry in disk._log[before:] if entry[0] != "hold"]

    monkeypatch.setattr(World, "_deliver", without_tensors)
    monkeypatch.setattr(Disk, "keep", messages_alone)
    played = play(Size(6, 1), "near,c,@CLOSE1,hold:5:CLOSE:1234,+1,bad:5:CLOSE:1,+3,kill:1:0")
    (halted,) = [(me, notice) for _, me, notice in played.world.notices if isinstance(notice, Halted)]
    assert halted[0] == 1 and halted[1].step == 1
    assert halted[1].problem.endswith(
        "a dispute decided what this step comes to, but the bytes or gradients for it do not come"
    )


def test_a_promise_that_nobody_had_to_break_stops_the_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash in an undisturbed run once counted as runs in which nothing was found."""

    def fails(peer: Peer, event: Input) -> list[Output]:
        raise KeyError(peer.me)

    monkeypatch.setattr(Peer, "handle", fails)
    for search in (lambda: explore(Size(4, 1), ["near", "c"], 1, 10, float("inf")),
                   lambda: guide(Size(6, 1), 0, 10, float("inf"), kills=True)):  # fmt: skip
        with pytest.raises(RuntimeError, match="before anybody deviates: crash: peer 0 raised KeyError at fails"):
            search()
