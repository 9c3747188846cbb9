"""Minimum-diameter averaging."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_rows
from btard.node.aggregation.strength import MAJORITY, faults
from btard.node.aggregation.subsets import mean_of, pair_squares, subsets


@rule("mda", source="El Mhamdi et al. 2021 (minimum-diameter averaging)", residual=None, condition=MAJORITY,
      exhaustive=True, examples=({}, {"f": 1}))  # fmt: skip
def mda(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Average of the n - f rows whose largest mutual distance is the smallest; of equal subsets, the first.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1, or too many subsets.

    Source: El Mhamdi et al. 2021 (arXiv 1905.03853), section 3.2; Rousseeuw 1985.
    """
    check_rows(inputs_NP)
    rows = len(inputs_NP)
    kept = rows - faults("mda", rows, f, MAJORITY, allow_weak)
    members_SK = torch.tensor(list(subsets("mda", rows, kept)))
    squares_NN = pair_squares(inputs_NP)
    diameters_S = squares_NN[members_SK[:, :, None], members_SK[:, None, :]].amax(dim=(1, 2))
    return mean_of(inputs_NP, members_SK[int(diameters_S.argmin())].tolist())
