"""The coordinate-wise trimmed mean."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.order import ordered
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import blocks, check_rows, to_float32
from btard.node.aggregation.strength import MAJORITY, faults


@rule(
    "trimmed_mean", source="Yin et al. 2018, definition 2", residual=None, condition=MAJORITY, coordinatewise=True,
    examples=({}, {"f": 1}),
)  # fmt: skip
def trimmed_mean(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Average of every coordinate without its f largest and its f smallest values.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Yin et al. 2018 (arXiv 1803.01498), definition 2.
    """
    check_rows(inputs_NP)
    rows, columns = inputs_NP.shape
    cut = faults("trimmed_mean", rows, f, MAJORITY, allow_weak)
    value_P = torch.empty(columns, dtype=torch.float32)
    for block in blocks(rows, columns):
        kept = ordered(inputs_NP[:, block], cut, rows - cut)
        total_B = kept[0].double()
        for wire_B in kept[1:]:
            total_B += wire_B
        value_P[block] = total_B.div_(len(kept))
    return to_float32(value_P)
