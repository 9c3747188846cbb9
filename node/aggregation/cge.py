"""Comparative gradient elimination."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_shape
from btard.node.aggregation.strength import MAJORITY, faults
from btard.node.aggregation.subsets import lowest, mean_of, row_norms


@rule("cge", source="Gupta et al. 2021, section 4", residual=None, condition=MAJORITY, examples=({}, {"f": 1}))
def cge(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Average of the n - f rows with the smallest norms.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Gupta, Liu and Vaidya 2021 (arXiv 2008.04699), equation 21, which adds where this averages.
    """
    check_shape(inputs_NP)
    rows = len(inputs_NP)
    kept = rows - faults("cge", rows, f, MAJORITY, allow_weak)
    return mean_of(inputs_NP, lowest(row_norms(inputs_NP), kept))
