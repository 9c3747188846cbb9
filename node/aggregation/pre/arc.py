"""Adaptive robust clipping."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.registry import pre_aggregation
from btard.node.aggregation.residual import clip_weights
from btard.node.aggregation.rows import check_shape
from btard.node.aggregation.strength import MAJORITY, faults
from btard.node.aggregation.subsets import row_norms


@pre_aggregation("arc", source="Allouah et al. 2025 (ARC), algorithm 1", condition=MAJORITY,
                 examples=({}, {"f": 1}))  # fmt: skip
def arc(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """The `k = floor(2 (f/n) (n-f))` longest rows are shortened to the length of the longest of the others.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as a majority of honest ones admits.
        allow_weak: work where n < 2f + 1.

    Returns:
        float32 `[N, P]`, fresh.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Allouah et al. 2025 (arXiv 2405.14432), algorithm 1.
    """
    check_shape(inputs_NP)
    rows = len(inputs_NP)
    withstood = faults("arc", rows, f, MAJORITY, allow_weak)
    clipped = 2 * withstood * (rows - withstood) // rows
    norms_N = row_norms(inputs_NP)
    limit = float(norms_N.sort().values[rows - clipped - 1])
    return inputs_NP * clip_weights(norms_N, limit).float()[:, None] if limit > 0 else inputs_NP.clone()
