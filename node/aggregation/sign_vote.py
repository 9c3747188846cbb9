"""The majority of signs."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.order import middle
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import blocks, check_rows, to_float32
from btard.node.protocol.attempt.attempt import LARGEST_MAGNITUDE


@rule(
    "sign_vote", source="Bernstein et al. 2019 (signSGD with majority vote)", residual=None, coordinatewise=True,
    examples=({}, {"scale": 0.01}),
)  # fmt: skip
def sign_vote(inputs_NP: Tensor, *, scale: float | None = None) -> Tensor:
    """Every coordinate takes the sign that most rows have (0 for a tie), all of them with one size.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        scale: the size, positive and at most 2^40; none: the average over the coordinates of the median of |x_i|, so
            that a step is about as large as the gradients are. The paper's own 1 asks for a learning rate of its own.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or a scale out of range.

    Source: Bernstein et al. 2019 (arXiv 1810.05291), algorithm 1.
    """
    check_rows(inputs_NP)
    # A larger aggregate would be taken for misconduct of whoever computed it.
    if scale is not None and not 0 < scale <= LARGEST_MAGNITUDE:
        raise ValueError(f"scale {scale} must be positive and at most {LARGEST_MAGNITUDE:g}")
    rows, columns = inputs_NP.shape
    value_P = torch.empty(columns, dtype=torch.float32)
    total = 0.0
    for block in blocks(rows, columns):
        rows_NB = inputs_NP[:, block]
        value_P[block] = rows_NB.sign().sum(dim=0).sign_()
        if scale is None:
            total += float(middle(rows_NB.abs()).sum(dtype=torch.float64))
    return to_float32(value_P.mul_(total / max(columns, 1) if scale is None else scale))
