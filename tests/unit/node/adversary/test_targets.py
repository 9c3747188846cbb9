"""Whom attacks choose: alike, or apart."""

from __future__ import annotations

import pytest

from btard.node.adversary.registry import bind
from btard.node.adversary.targets import chosen, permitted, shuffled
from btard.node.adversary.view import View
from btard.node.config import Plugin
from btard.node.errors import ConfigError

HONEST = (0, 1, 2, 3, 6)


def view(me: int = 4, active: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6), seed: int = 3) -> View:
    return View(step=7, me=me, accomplices=(4, 5), active=active, attack_seed=seed)


@pytest.mark.parametrize(("to", "many"), [("one", 1), ("two", 2), ("half", 3), ("all_but_one", 4), ("all", 5)])
def test_how_many_honest_peers_a_word_means(to: str, many: int) -> None:
    found = chosen(view(), to)
    assert len(found) == many
    assert found == tuple(sorted(found))
    assert set(found) <= set(HONEST)


def test_attackers_choose_alike_and_at_every_step() -> None:
    assert chosen(view(4), "half") == chosen(view(5), "half")
    orders = {shuffled(view(seed=seed), "targets") for seed in range(20)}
    assert len(orders) > 10


def test_the_order_outlasts_removals() -> None:
    order = shuffled(view(), "targets")
    smaller = shuffled(view(active=(0, 2, 3, 4, 6)), "targets")
    assert smaller == tuple(peer for peer in order if peer != 1)


def test_attackers_take_different_targets_apart() -> None:
    assert chosen(view(4), "one", apart=True) != chosen(view(5), "one", apart=True)


def test_named_peers_are_those_that_are_there() -> None:
    assert chosen(view(), "@6@0@9") == (0, 6)


@pytest.mark.parametrize(("to", "fits"), [("@0", True), ("@0@12", True), ("@", False), ("0", False), ("some", False)])
def test_only_words_and_ids_are_permitted(to: str, fits: bool) -> None:
    assert permitted(to, ("one", "@ID@ID...")) is fits
    if not fits:
        with pytest.raises(ConfigError, match="must be one of"):
            bind(Plugin("stall", {"to": to}))
