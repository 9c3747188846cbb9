"""The mean around the median."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.order import median_of, ordered
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import blocks, check_rows, to_float32
from btard.node.aggregation.strength import MAJORITY, faults


@rule(
    "meamed", source="Xie et al. 2018 (Generalized Byzantine-tolerant SGD)", residual=None, condition=MAJORITY,
    coordinatewise=True, examples=({}, {"f": 1}),
)  # fmt: skip
def meamed(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Average of the n - f values of every coordinate that lie nearest to its median.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Xie, Koyejo and Gupta 2018 (arXiv 1802.10116), definition 6.
    """
    check_rows(inputs_NP)
    rows, columns = inputs_NP.shape
    kept = rows - faults("meamed", rows, f, MAJORITY, allow_weak)
    value_P = torch.empty(columns, dtype=torch.float32)
    for block in blocks(rows, columns):
        value_P[block] = nearest_to_median(inputs_NP[:, block], kept)
    return to_float32(value_P)


def nearest_to_median(block_NB: Tensor, kept: int) -> Tensor:
    """Average of the `kept` values of every column nearest to its median, float64 `[B]`; of two equally far, the lower.

    The nearest values stand side by side in ascending order, in a window that starts at one of the first N - kept
    places: it starts after place i if place i + kept is nearer to the median than place i.
    """
    rows = block_NB.shape[0]
    wires = ordered(block_NB, 0, rows)
    median_B = median_of(wires[(rows - 1) // 2 : rows // 2 + 1])
    starts_later = [
        (wires[place + kept] - median_B).abs_() < (median_B - wires[place]).abs_() for place in range(rows - kept)
    ]
    total_B = torch.zeros_like(median_B, dtype=torch.float64)
    for place, wire_B in enumerate(wires):
        inside_B = wire_B
        if place < rows - kept:
            inside_B = inside_B * starts_later[place].logical_not()
        if place >= kept:
            inside_B = inside_B * starts_later[place - kept]
        total_B += inside_B
    return total_B.div_(kept)
