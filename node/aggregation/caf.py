"""Covariance-bound agnostic filter."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.gram import gram_about_median
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_rows, combine_float32
from btard.node.aggregation.strength import MAJORITY, faults


@rule("caf", source="Allouah et al. 2025 (covariance-bound agnostic filter)", residual=None, condition=MAJORITY,
      examples=({}, {"f": 1}))  # fmt: skip
def caf(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Weighted mean after rows have lost weight by how far they stand out along the direction of largest variance.

    Weights fall until no more than n - 2f are left in all; of the means on the way the one with the smallest largest
    eigenvalue of its covariance is returned. Eigenpairs are exact, from the Gram matrix.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Allouah et al. 2025 (arXiv 2505.01874), algorithm 2.
    """
    check_rows(inputs_NP)
    rows = len(inputs_NP)
    goal = rows - 2 * faults("caf", rows, f, MAJORITY, allow_weak)
    gram_NN = gram_about_median(inputs_NP)
    weights_N = torch.ones(rows, dtype=torch.float64)
    best, shares_N = float("inf"), weights_N / rows
    while float(weights_N.sum()) > goal or best == float("inf"):
        largest, outlying_N = _principal(gram_NN, weights_N)
        if largest < best:
            best, shares_N = largest, weights_N / weights_N.sum()
        # Among rows that still weigh something: one of them loses all, so there are at most N rounds.
        top = float(outlying_N[weights_N > 0].max())
        if top <= 0:
            break  # all rows that still weigh anything are equal
        weights_N = weights_N * (1 - outlying_N / top).clamp(min=0)
    return combine_float32(inputs_NP, shares_N)


def _principal(gram_NN: Tensor, weights_N: Tensor) -> tuple[float, Tensor]:
    """Largest eigenvalue of the weighted covariance, and every row's squared offset along its eigenvector."""
    shares_N = weights_N / weights_N.sum()
    image_N = gram_NN @ shares_N
    centred_NN = gram_NN - image_N[:, None] - image_N + shares_N @ image_N
    roots_N = shares_N.sqrt()
    values_N, vectors_NN = torch.linalg.eigh(roots_N[:, None] * centred_NN * roots_N)
    largest = float(values_N[-1])
    if largest <= 0:
        return 0.0, torch.zeros_like(weights_N)
    return largest, (centred_NN @ (roots_N * vectors_NN[:, -1])).square_().div_(largest)
