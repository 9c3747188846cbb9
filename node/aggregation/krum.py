"""The row nearest to its neighbours."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_rows, to_float32
from btard.node.aggregation.strength import Condition, faults
from btard.node.aggregation.subsets import pair_squares

CONDITION = Condition("n >= 2f + 3", lambda f: 2 * f + 3)


@rule("krum", source="Blanchard et al. 2017, section 4", residual=None, condition=CONDITION, examples=({}, {"f": 1}))
def krum(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """The row with the smallest sum of squared distances to its n - f - 2 nearest others.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 3.

    Source: Blanchard et al. 2017 (arXiv 1703.02757), section 4.
    """
    check_rows(inputs_NP)
    near = faults("krum", len(inputs_NP), f, CONDITION, allow_weak)
    return to_float32(inputs_NP[int(scores(pair_squares(inputs_NP), near).argmin())])


def scores(squares_NN: Tensor, f: int) -> Tensor:
    """Krum's score of every row, float64 `[N]`: at least one neighbour counts where the condition fails.

    Args:
        squares_NN: squared distances, float64.
    """
    rows = len(squares_NN)
    others_NN = squares_NN + torch.zeros_like(squares_NN).fill_diagonal_(float("inf"))
    near = min(max(1, rows - f - 2), rows - 1)
    return others_NN.sort(dim=1).values[:, :near].sum(dim=1)
