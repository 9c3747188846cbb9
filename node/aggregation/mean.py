"""The arithmetic mean: what an undefended all-reduce computes."""

from __future__ import annotations

import torch
from torch import Tensor

from node.aggregation.registry import rule
from node.aggregation.rows import check_rows, combine_float32


@rule(
    "mean",
    source="plain all-reduce; the undefended baseline",
    residual="unclipped",
    coordinatewise=True,
    examples=({},),
)
def mean(inputs_NP: Tensor) -> Tensor:
    """Average of all rows, summed in float64; one attacker moves it as far as it likes.

    Args:
        inputs_NP: float32 `[N, P]`, finite.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, or not finite.

    Source: Gorbunov et al. 2021 (arXiv 2106.11257), section 4: plain All-Reduce SGD, the baseline.
    """
    check_rows(inputs_NP)
    rows = inputs_NP.shape[0]
    # Scaled after the sum: outliers that cancel each other leave no trace.
    return combine_float32(inputs_NP, torch.ones(rows, dtype=torch.float64), 1.0 / rows)
