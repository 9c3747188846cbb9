"""Averages of random groups."""

from __future__ import annotations

import torch
from blake3 import blake3
from torch import Tensor

from btard.node.aggregation.registry import pre_aggregation
from btard.node.aggregation.rows import check_rows
from btard.node.aggregation.subsets import mean_of

_SAMPLE_COLUMNS = 64


@pre_aggregation("bucketing", source="Karimireddy et al. 2022, algorithm 1", examples=({}, {"s": 3}),
                 rows=lambda rows, parameters: -(-rows // int(str(parameters.get("s", 2)))))  # fmt: skip
def bucketing(inputs_NP: Tensor, *, s: int = 2, seed: int = 0) -> Tensor:
    """Rows are put into random groups of s, and each group becomes its average; the last one may be smaller.

    Whoever judges an aggregate must find the same groups, so they are drawn from the seed and the first columns of the
    rows: nobody knows them before all gradients are committed to, but an attacker may try several gradients.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        s: rows in a group.
        seed: of the draw.

    Returns:
        float32 `[ceil(N / s), P]`, fresh.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or s < 1.

    Source: Karimireddy, He and Jaggi 2022 (arXiv 2006.09365), algorithm 1.
    """
    check_rows(inputs_NP)
    if s < 1:
        raise ValueError(f"s={s} must be at least 1")
    sample = inputs_NP[:, :_SAMPLE_COLUMNS].contiguous().numpy().tobytes()
    drawn = blake3(sample, derive_key_context=f"btard bucketing {seed}").digest(length=4)
    generator = torch.Generator().manual_seed(int.from_bytes(drawn, "little"))
    order = torch.randperm(len(inputs_NP), generator=generator).tolist()
    return torch.stack([mean_of(inputs_NP, sorted(order[start : start + s])) for start in range(0, len(order), s)])
