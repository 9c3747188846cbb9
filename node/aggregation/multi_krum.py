"""The average of the rows that Krum likes best."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.krum import CONDITION, scores
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_rows
from btard.node.aggregation.strength import faults
from btard.node.aggregation.subsets import lowest, mean_of, pair_squares


@rule(
    "multi_krum", source="Blanchard et al. 2017, section 5", residual=None, condition=CONDITION,
    examples=({}, {"f": 1, "m": 2}),
)  # fmt: skip
def multi_krum(inputs_NP: Tensor, *, f: int | None = None, m: int | None = None, allow_weak: bool = False) -> Tensor:
    """Average of the m rows with the smallest Krum scores.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        m: rows to average; none: n - f.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 3, or m out of range.

    Source: Blanchard et al. 2017 (arXiv 1703.02757), section 5; m = n - f as in Damaskinos et al. 2019.
    """
    check_rows(inputs_NP)
    rows = len(inputs_NP)
    withstood = faults("multi_krum", rows, f, CONDITION, allow_weak)
    if m is not None and (type(m) is not int or m < 1):
        raise ValueError(f"m={m} must be a whole number of at least 1")
    count = rows - withstood if m is None else min(m, rows)
    return mean_of(inputs_NP, lowest(scores(pair_squares(inputs_NP), withstood), count))
