"""Attacks that know nothing of the others: nothing, holes, chance, and what is no number; worked numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from btard.node.adversary import search
from btard.node.adversary.attacks.alie_optimised import alie_optimised
from btard.node.adversary.attacks.bulyan_coordinate import bulyan_coordinate
from btard.node.adversary.attacks.drop import drop
from btard.node.adversary.attacks.infinite import infinite
from btard.node.adversary.attacks.ipm_optimised import ipm_optimised
from btard.node.adversary.attacks.nan import nan
from btard.node.adversary.attacks.random import random
from btard.node.adversary.attacks.zero import zero
from btard.node.adversary.view import View

VIEW = View(step=7, me=4, accomplices=(4, 5), dimension=10, attack_seed=3)
GRADIENT = torch.tensor([3.0, 4.0, 0.5, 2.0, -9.0, 1.0, -1.0, 1.0, -1.0, 8.0])
SIZE = 20_000
LONG = torch.randn(SIZE, generator=torch.Generator().manual_seed(1)) * 3.0 + 0.5


def untouched(sent_D: Tensor, gradient_D: Tensor, places: list[int]) -> bool:
    """True if only those places differ."""
    others_D = torch.ones(len(gradient_D), dtype=torch.bool)
    others_D[places] = False
    return torch.equal(sent_D[others_D], gradient_D[others_D])


def test_zero_sends_nothing_but_zeros() -> None:
    sent = zero(GRADIENT, VIEW)
    assert (sent.tolist(), sent.dtype) == ([0.0] * 10, torch.float32)


SPREAD = [
    ("three of ten, one third apart", 3, [0, 3, 6]),
    ("one", 1, [0]),
    ("none is not offered", 0, [0]),
    ("half", 5, [0, 2, 4, 6, 8]),
    ("six of ten, next to each other", 6, [0, 1, 2, 3, 4, 5]),
    ("more than there are: all", 30, list(range(10))),
]


@pytest.mark.parametrize(("entries", "places"), [row[1:] for row in SPREAD], ids=[row[0] for row in SPREAD])
def test_nan_and_infinite_spoil_as_many_entries_as_they_say(entries: int, places: list[int]) -> None:
    before = GRADIENT.clone()
    spoiled = nan(GRADIENT, VIEW, entries=entries)
    assert spoiled.isnan().nonzero().flatten().tolist() == places
    assert untouched(spoiled, GRADIENT, places)
    for value in (math.inf, -1e30):
        huge = infinite(GRADIENT, VIEW, value=value, entries=entries)
        assert (huge == value).nonzero().flatten().tolist() == places
        assert untouched(huge, GRADIENT, places)
    assert torch.equal(GRADIENT, before), "the honest gradient is still needed"


def test_nan_and_infinite_by_default() -> None:
    assert nan(torch.ones(9), VIEW).isnan().nonzero().flatten().tolist() == [0, 3, 6]
    assert infinite(torch.ones(9), VIEW).tolist() == [math.inf, 1, 1] * 3


def test_drop_leaves_out_the_largest_entry_and_each_other_one_by_chance() -> None:
    assert drop(GRADIENT, VIEW, share=0.0).tolist() == [3.0, 4.0, 0.5, 2.0, 0.0, 1.0, -1.0, 1.0, -1.0, 8.0]
    assert drop(GRADIENT, VIEW, share=1.0).tolist() == [0.0] * 10
    kept = GRADIENT.clone()
    kept[4] = 0.0
    for step in range(50):
        sent = drop(GRADIENT, replace(VIEW, step=step))
        assert bool(((sent == 0) | (sent == kept)).all()), "an entry is sent as it is, or as zero"
        assert sent[4] == 0.0
    assert GRADIENT[4] == -9.0


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9])
def test_drop_leaves_out_its_share(share: float) -> None:
    """Binomial: within five deviations, beside the one that always goes."""
    sent = drop(LONG, VIEW, share=share)
    count = int((sent == 0).sum())
    assert count == pytest.approx(SIZE * share, abs=5 * math.sqrt(SIZE * share * (1 - share)) + 1)
    assert torch.equal(sent[sent != 0], LONG[sent != 0])


def test_random_is_uniform_on_the_sphere_of_the_gradients_length() -> None:
    """A normalised Gaussian vector of length L: entries have mean 0, square L^2/D and fourth moment 3 L^4/(D (D + 2)).

    Tolerances are five deviations: the mean of the entries deviates by L/D, the mean fourth power by sqrt(24/D) L^4/D^2
    (a Gaussian's own 96/D, less the 72/D that the fixed length takes away).
    """
    sent = random(LONG, VIEW).double()
    length = float(LONG.double().norm())
    assert float(sent.norm()) == pytest.approx(length, rel=1e-5)
    assert float(random(LONG, VIEW, scale=100.0).double().norm()) == pytest.approx(100 * length, rel=1e-5)
    assert float(sent.mean()) == pytest.approx(0.0, abs=5 * length / SIZE)
    fourth = float((sent / length * math.sqrt(SIZE)).pow(4).mean())
    assert fourth == pytest.approx(3 * SIZE / (SIZE + 2), abs=5 * math.sqrt(24 / SIZE))
    below = float((sent < 0).double().mean())
    assert below == pytest.approx(0.5, abs=5 * 0.5 / math.sqrt(SIZE))


def test_random_takes_nothing_from_the_gradient_but_its_length() -> None:
    """The same vector for another gradient of that length, and at a right angle to both but for chance: 1/sqrt(D)."""
    sent, other = random(LONG, VIEW), LONG.flip(0)
    assert torch.allclose(random(other, VIEW), sent, rtol=1e-5)
    for gradient_D in (LONG, other):
        assert float(torch.cosine_similarity(sent, gradient_D, dim=0)) == pytest.approx(0.0, abs=5 / math.sqrt(SIZE))
    assert random(torch.zeros(10), VIEW).tolist() == [0.0] * 10


@pytest.mark.parametrize("attack", [random, drop], ids=["random", "drop"])
def test_chance_repeats_from_its_seed_and_is_fresh_at_each_step_and_attacker(attack: Callable[..., Tensor]) -> None:
    sent = attack(LONG, VIEW)
    assert torch.equal(sent, attack(LONG, VIEW))
    for other in (replace(VIEW, step=8), replace(VIEW, me=5), replace(VIEW, attack_seed=4)):
        assert not torch.equal(sent, attack(LONG, other))


# --- the search for a factor --------------------------------------------------------------------------------------

HONEST = {peer: torch.tensor([1.0, 2.0, 3.0, 4.0]).roll(peer) for peer in range(3)}


def mean_of(rows_ND: Tensor) -> Tensor:
    return rows_ND.mean(dim=0)


def near_of(rows_ND: Tensor) -> Tensor:
    """The mean of the rows that are no farther than 9 from the middle: larger factors are left out."""
    return rows_ND[(rows_ND - 2.5).norm(dim=1) <= 9.0].mean(dim=0)


@pytest.mark.parametrize("budget", [1, 10, 11, 12, 13, 20, 40])
@pytest.mark.parametrize("rule", [mean_of, near_of])
@pytest.mark.parametrize("attack", [alie_optimised, ipm_optimised, bulyan_coordinate])
def test_the_search_computes_the_rule_as_often_as_it_says(
    attack: Callable[..., Tensor], rule: Callable[[Tensor], Tensor], budget: int
) -> None:
    """Ten octaves, and one or two new factors in each later round."""
    says = " ".join((search.strongest.__doc__ or "").split())
    assert "the rule is computed 2 evaluations - 10 times at most, and never less than 10 times" in says
    calls = 0

    def counted(rows_ND: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return rule(rows_ND)

    view = replace(VIEW, dimension=4, active=(0, 1, 2, 4, 5), contributors=(0, 1, 2, 4, 5),
                   recompute=HONEST.__getitem__, combine=counted)  # fmt: skip
    attack(torch.zeros(4), view, evaluations=budget)
    assert max(10, budget) <= calls <= max(10, 2 * budget - 10)
