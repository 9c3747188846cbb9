"""node/training/splits.py: whose examples are whose, for everybody alike."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from btard.node.config import Plugin, RunConfig
from btard.node.errors import ConfigError
from btard.node.training.sampling import Shards, generator_from
from btard.node.training.splits import deal_of

PEERS, CLASSES, EACH = 6, 10, 60
LABELS = torch.arange(CLASSES).repeat(EACH)
XI = bytes(32)


def dealt(name: str, labels: Tensor = LABELS, seed: int = 3, **parameters: Any) -> Shards:
    deal = deal_of(RunConfig(peers=PEERS, data_seed=seed, split=Plugin(name, parameters)))
    assert deal is not None
    return deal(labels)


def counts(shards: Shards) -> Tensor:
    """Examples of each class at each peer, int64 `[N, classes]`."""
    return torch.stack([LABELS[shard].bincount(minlength=CLASSES) for shard in shards.places])


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("dirichlet", {"alpha": 0.3}),
    ("dirichlet", {"alpha": 100.0}),
    ("gamma", {"similarity": 0.0}),
    ("gamma", {"similarity": 0.4}),
    ("gamma", {"similarity": 1.0}),
    ("classes", {"k": 1}),
    ("classes", {"k": 2}),
]


@pytest.mark.parametrize(("name", "parameters"), KINDS)
def test_every_example_is_one_peers_and_the_seed_says_whose(name: str, parameters: Any) -> None:
    shards = dealt(name, **parameters)
    assert torch.cat(shards.places).sort().values.tolist() == list(range(CLASSES * EACH))
    again, other = dealt(name, **parameters), dealt(name, seed=4, **parameters)
    assert all(map(torch.equal, shards.places, again.places))
    assert not all(a.equal(b) for a, b in zip(shards.places, other.places, strict=True))


def test_iid_deals_nothing() -> None:
    assert deal_of(RunConfig()) is None


def test_a_small_alpha_is_less_even_than_a_large_one() -> None:
    spread = {alpha: counts(dealt("dirichlet", alpha=alpha)).float().std(dim=0).mean() for alpha in (0.1, 1.0, 1000.0)}
    assert spread[0.1] > 1.5 * spread[1.0] > 10 * spread[1000.0]


@pytest.mark.parametrize(("similarity", "alike"), [(1.0, True), (0.0, False)])
def test_similarity_goes_from_sorted_to_mixed(similarity: float, alike: bool) -> None:
    classes_N = (counts(dealt("gamma", similarity=similarity)) > 0).sum(dim=1)
    assert bool((classes_N == CLASSES).all()) == alike and bool((classes_N <= 3).all()) != alike


@pytest.mark.parametrize("k", [1, 2, 3])
def test_k_classes_and_those_on_a_border(k: int) -> None:
    classes_N = (counts(dealt("classes", k=k)) > 0).sum(dim=1)
    assert bool((classes_N <= 3 * k).all()) and bool((classes_N < CLASSES).all())
    sizes = [len(shard) for shard in dealt("classes", k=k).places]
    assert max(sizes) - min(sizes) <= 2 * k


def test_a_batch_comes_from_the_shard_of_the_peer_that_the_seed_names() -> None:
    shards = dealt("classes", k=1)
    for peer, shard in enumerate(shards.places):
        seed = XI + peer.to_bytes(2, "little")
        first, again = (shards.draw(seed, 64, generator_from(seed, "test")) for _ in range(2))
        assert torch.equal(first, again) and set(first.tolist()) <= set(shard.tolist())


def test_a_seed_that_names_nobody_draws_from_all_as_without_a_split() -> None:
    found, plain = (each.draw(XI, 64, generator_from(XI, "test")) for each in (dealt("classes"), Shards(len(LABELS))))
    assert torch.equal(found, plain) and len(LABELS[found].unique()) == CLASSES


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("dirichlet", {"alpha": 0.0}, "alpha=0.0 must be a positive, finite number"),
    ("dirichlet", {"alpha": 1e-6}, "alpha=1e-06 leaves some of 6 peers without an example"),
    ("gamma", {"similarity": 1.5}, "similarity=1.5 must lie between 0 and 1"),
    ("classes", {"k": 0}, "k=0 is too small; use at least 1"),
    ("class", {}, "did you mean 'classes'"),
]


@pytest.mark.parametrize(("name", "parameters", "problem"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_cannot_be_dealt(name: str, parameters: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        dealt(name, torch.zeros(40, dtype=torch.int64), **parameters)


def test_a_peer_without_examples_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--split classes leaves peer \d of 6 without a training example"):
        dealt("classes", torch.arange(4), k=1)
