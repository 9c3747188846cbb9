"""The coordinate-wise median."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.order import middle
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import blocks, check_rows, to_float32


@rule("median", source="Yin et al. 2018, definition 1", residual=None, coordinatewise=True, examples=({},))
def median(inputs_NP: Tensor) -> Tensor:
    """Median of every coordinate; with an even number of rows the average of the two middle values.

    Exact: an odd count returns numbers of the inputs, an even one rounds their average once.

    Args:
        inputs_NP: float32 `[N, P]`, finite.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, or not finite.

    Source: Yin et al. 2018 (arXiv 1803.01498), definition 1.
    """
    check_rows(inputs_NP)
    rows, columns = inputs_NP.shape
    value_P = torch.empty(columns, dtype=torch.float32)
    for block in blocks(rows, columns):
        value_P[block] = middle(inputs_NP[:, block])
    return to_float32(value_P)
