"""The rows nearest to a trusted one."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_rows
from btard.node.aggregation.strength import MAJORITY, faults
from btard.node.aggregation.subsets import lowest, mean_of, row_distances


@rule("monna", source="Farhadkhani et al. 2023 (MoNNA)", residual=None, condition=MAJORITY, examples=({}, {"f": 1}))
def monna(inputs_NP: Tensor, *, f: int | None = None, own: int = 0, allow_weak: bool = False) -> Tensor:
    """Average of the n - f rows nearest to row `own`, which is trusted.

    Made for peers that each aggregate for themselves around their own gradient. In a run all must agree on the result,
    so the trusted row is the same for everybody: the contributor in that place of the roster.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        own: place of the trusted row, modulo n.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1.

    Source: Farhadkhani et al. 2023 (arXiv 2209.10931), section 3.
    """
    check_rows(inputs_NP)
    rows = len(inputs_NP)
    kept = rows - faults("monna", rows, f, MAJORITY, allow_weak)
    return mean_of(inputs_NP, lowest(row_distances(inputs_NP, inputs_NP[own % rows]), kept))
