"""How the training examples are split among the peers, by name for `--split`.

A shard is a public function of the data seed and the peer, so anybody can recompute a gradient that was drawn from it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from btard.node.config import RunConfig
from btard.node.errors import ConfigError
from btard.node.training.registry import SPLITS, split
from btard.node.training.sampling import Shards, generator_from_int
from btard.node.training.task import Deal

_TRIES = 1000
"""Draws of `dirichlet` until every peer has an example."""


@split("iid", source="McMahan et al. 2017")
def iid(labels: Tensor, peers: int, seed: int) -> list[Tensor]:
    """Everybody draws from all examples."""
    return []


@split("dirichlet", source="Hsu, Qi and Brown 2019; per class as in Li et al. 2022 (NIID-Bench)")
def dirichlet(labels: Tensor, peers: int, seed: int, *, alpha: float = 0.5) -> list[Tensor]:
    """The examples of each class in shares drawn from Dirichlet(alpha): a smaller alpha is less even."""
    if not 0 < alpha < math.inf:
        raise ConfigError(f"--split dirichlet: alpha={alpha} must be a positive, finite number")
    classes = _by_class(labels, seed)
    # Python's own generator: its gamma variates are the same with every version of numpy and torch.
    source = random.Random(f"btard 2026 split dirichlet {seed}")
    for _ in range(_TRIES):
        shards: list[list[Tensor]] = [[] for _ in range(peers)]
        for places_P in classes:
            drawn = [source.gammavariate(alpha, 1.0) for _ in range(peers)]
            if sum(drawn) == 0:  # all of them below the smallest float
                break
            for shard, piece_P in zip(shards, _cut(places_P, drawn), strict=True):
                shard.append(piece_P)
        else:
            joined = [torch.cat(shard) for shard in shards]
            if all(map(len, joined)):
                return joined
    raise ConfigError(
        f"--split dirichlet: alpha={alpha} leaves some of {peers} peers without an example; use a larger one"
    )


@split("gamma", source="Karimireddy et al. 2020, section 7 (similarity); as ByzFL's gamma_similarity_niid")
def gamma(labels: Tensor, peers: int, seed: int, *, similarity: float = 0.5) -> list[Tensor]:
    """A share of `similarity` at random, the other examples sorted by class and cut into one run for each peer."""
    if not 0 <= similarity <= 1:
        raise ConfigError(f"--split gamma: similarity={similarity} must lie between 0 and 1")
    mixed_P = torch.randperm(len(labels), generator=generator_from_int(seed, "split examples"))
    common = int(similarity * len(labels))
    rest_P = mixed_P[common:]
    rest_P = rest_P[labels[rest_P].argsort(stable=True)]
    runs = _cut(rest_P, [1.0] * peers)
    return [
        torch.cat((piece_P, runs[run]))
        for piece_P, run in zip(_cut(mixed_P[:common], [1.0] * peers), _order(peers, seed), strict=True)
    ]


@split("classes", source="McMahan et al. 2017, section 3 (pathological non-IID)")
def classes(labels: Tensor, peers: int, seed: int, *, k: int = 2) -> list[Tensor]:
    """Sorted by class and cut into `k` runs for each peer: `k` classes, and some of the next where a run ends late."""
    if k < 1:
        raise ConfigError(f"--split classes: k={k} is too small; use at least 1")
    runs, order = _cut(torch.cat(_by_class(labels, seed)), [1.0] * (k * peers)), _order(k * peers, seed)
    return [torch.cat([runs[run] for run in order[k * peer : k * (peer + 1)]]) for peer in range(peers)]


def deal_of(run: RunConfig) -> Deal | None:
    """How a run splits the examples of a task with labels; None: everybody draws from all.

    Raises:
        ConfigError: an unknown split or parameter; what it returns, a value out of range, or a peer without examples.
    """
    name, parameters = run.split.name, run.split.parameters
    SPLITS.check(name, parameters)
    if name == "iid":
        return None

    def deal(labels: Tensor) -> Shards:
        shards = SPLITS.get(name).target(labels.cpu(), run.peers, run.data_seed, **parameters)
        poor = [peer for peer, shard in enumerate(shards) if not len(shard)]
        if poor:
            raise ConfigError(
                f"--split {name} leaves peer {poor[0]} of {run.peers} without a training example; use others"
            )
        return Shards(len(labels), shards)

    return deal


def _by_class(labels: Tensor, seed: int) -> list[Tensor]:
    """The places of each class's examples, in an order that the seed draws."""
    mixed_P = torch.randperm(len(labels), generator=generator_from_int(seed, "split examples"))
    return [mixed_P[labels[mixed_P] == label] for label in sorted(set(labels.tolist()))]


def _order(count: int, seed: int) -> list[int]:
    found: list[int] = torch.randperm(count, generator=generator_from_int(seed, "split runs")).tolist()
    return found


def _cut(places_P: Tensor, weights: Iterable[float]) -> list[Tensor]:
    """In pieces as long as the weights, rounded."""
    ends = list(accumulate(weights))
    edges = [0, *(round(len(places_P) * end / ends[-1]) for end in ends)]
    return [places_P[start:stop] for start, stop in pairwise(edges)]
