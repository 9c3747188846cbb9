"""How gradients come together without this project's protocol: aggregates and traffic of the comparison topologies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from btard.node.config import RunConfig
from btard.node.errors import ConfigError
from btard.node.protocol.attempt.attempt import Split, part_radius
from btard.node.protocol.rule import Rule

_FLOAT_BYTES = 4


@dataclass(frozen=True, slots=True)
class Sent:
    """Bytes from one peer to another in one step."""

    sender: int
    receiver: int
    kind: str
    size_bytes: int


def check(run: RunConfig) -> None:
    """Refuse what a topology cannot do.

    Raises:
        ConfigError: a rule where there is only a mean, an optimiser that knows no blocks, or momentum or bans where
            there is nobody to judge.
    """
    if run.topology == "butterfly":
        if run.worker_momentum:
            raise ConfigError(
                f"--worker-momentum {run.worker_momentum}: a validator could not recompute it from public seeds; "
                "use --topology parameter_server"
            )
        return
    if run.undo:
        raise ConfigError(f"--undo {run.undo}: nobody is banned under --topology {run.topology}; leave it out")
    if run.topology == "byrdie" and run.optimiser.name != "sgd":
        raise ConfigError(
            f"--topology byrdie moves one block of coordinates in a step, which --optimiser {run.optimiser.name} does "
            "not know; use sgd"
        )
    if run.topology in ("ring", "none") and (run.rule.name != "mean" or run.pre):
        raise ConfigError(f"--topology {run.topology} has no defence: it averages; add --rule mean")


def aggregate(run: RunConfig, rule: Rule, rows_ND: Tensor) -> Tensor:
    """The aggregate `[D]` of all contributions `[N, D]`.

    A trusted server and ByRDiE apply the rule to the whole vector, its radius being that of all parts together.
    """
    if run.topology == "ring":
        return _around_the_ring(rows_ND)
    size = rows_ND.shape[1]
    return rule.aggregate(rows_ND, part_radius(run.tau, size, run.peers, size)).value_P


def updated(run: RunConfig, dimension: int, step: int) -> slice:
    """The entries that a step changes: all of them, or ByRDiE's block of the step.

    Source: Yang and Bajwa 2019 (arXiv 1708.08155), algorithm 1, with as many blocks as there are peers.
    """
    if run.topology != "byrdie":
        return slice(0, dimension)
    return slice(*Split(dimension, run.peers).bounds[step % run.peers])


def traffic(run: RunConfig, dimension: int, step: int) -> Iterator[Sent]:
    """What peers send in a step. A server has no id: what is sent to it counts as sent to oneself."""
    peers, split = range(run.peers), Split(dimension, run.peers)
    match run.topology:
        case "parameter_server":
            yield from (Sent(peer, peer, "part", _FLOAT_BYTES * dimension) for peer in peers)
        case "ring":
            # Every chunk passes every peer but one twice: once as a sum that grows, once as the result.
            for peer in peers:
                for hop in range(run.peers - 1):
                    yield Sent(peer, (peer + 1) % run.peers, "part", _size(split, peer - hop))
                    yield Sent(peer, (peer + 1) % run.peers, "aggregate", _size(split, peer + 1 - hop))
        case "none":
            for peer in peers:
                others = [other for other in peers if other != peer]
                yield from (Sent(peer, other, "part", _size(split, other)) for other in others)
                yield from (Sent(peer, other, "aggregate", _size(split, peer)) for other in others)
        case _:
            block = updated(run, dimension, step)
            size = _FLOAT_BYTES * (block.stop - block.start)
            yield from (Sent(peer, other, "part", size) for peer in peers for other in peers if other != peer)


def _size(split: Split, part: int) -> int:
    start, stop = split.bounds[part % split.count]
    return _FLOAT_BYTES * (stop - start)


def _around_the_ring(rows_ND: Tensor) -> Tensor:
    """Chunk j starts at peer j + 1 and every peer adds its own on the way, in float32."""
    count, size = rows_ND.shape
    edges = [start for start, _ in Split(size, count).bounds] + [size]
    chunks = []
    for place, (start, stop) in enumerate(pairwise(edges)):
        total = rows_ND[(place + 1) % count, start:stop].clone()
        for hop in range(2, count + 1):
            total += rows_ND[(place + hop) % count, start:stop]
        chunks.append(total / count)
    return torch.cat(chunks).add_(0.0)
