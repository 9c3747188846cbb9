"""The arithmetic mean: what an undefended all-reduce computes."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import all_finite, check_rows, check_shape, combine_float32


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
    check_shape(inputs_NP)
    rows = inputs_NP.shape[0]
    # Scaled after the sum: outliers that cancel each other leave no trace.
    value_P = combine_float32(inputs_NP, torch.ones(rows, dtype=torch.float64), 1.0 / rows)
    # A float64 sum is finite exactly if all of its float32 terms are: looking at the result reads N times less.
    if not all_finite(value_P):
        check_rows(inputs_NP)
    return value_P
