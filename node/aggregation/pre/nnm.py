"""Nearest-neighbour mixing."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.registry import pre_aggregation
from btard.node.aggregation.rows import check_rows
from btard.node.aggregation.strength import MAJORITY, faults
from btard.node.aggregation.subsets import mean_of, pair_squares


@pre_aggregation("nnm", source="Allouah et al. 2023 (Fixing by Mixing), algorithm 2", condition=MAJORITY,
                 examples=({}, {"f": 1}))  # fmt: skip
def nnm(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Every row becomes the average of the n - f rows nearest to it, itself among them.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as a majority of honest ones admits.
        allow_weak: work where n < 2f + 1.

    Returns:
        float32 `[N, P]`, fresh.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Allouah et al. 2023 (arXiv 2302.01772), algorithm 2.
    """
    check_rows(inputs_NP)
    rows = len(inputs_NP)
    kept = rows - faults("nnm", rows, f, MAJORITY, allow_weak)
    nearest_NK = pair_squares(inputs_NP).argsort(dim=1, stable=True)[:, :kept]
    return torch.stack([mean_of(inputs_NP, near_K) for near_K in nearest_NK.tolist()])
