"""Smallest maximum-eigenvalue averaging."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.gram import gram_about_median
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_rows
from btard.node.aggregation.strength import MAJORITY, faults
from btard.node.aggregation.subsets import mean_of, subsets


@rule("smea", source="Allouah et al. 2023 (privacy-robustness-utility trilemma)", residual=None, condition=MAJORITY,
      exhaustive=True, examples=({}, {"f": 1}))  # fmt: skip
def smea(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Average of the n - f rows whose covariance has the smallest largest eigenvalue; of equal subsets, the first.

    The eigenvalue is exact: it is that of the subset's centred Gram matrix, which has n - f rows instead of P.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 2f + 1, or too many subsets.

    Source: Allouah et al. 2023 (arXiv 2302.04787), section 4.
    """
    check_rows(inputs_NP)
    rows = len(inputs_NP)
    kept = rows - faults("smea", rows, f, MAJORITY, allow_weak)
    members_SK = torch.tensor(list(subsets("smea", rows, kept)))
    gram_NN = gram_about_median(inputs_NP)
    grams_SKK = gram_NN[members_SK[:, :, None], members_SK[:, None, :]]
    centred_SKK = grams_SKK - grams_SKK.mean(1, True) - grams_SKK.mean(2, True) + grams_SKK.mean((1, 2), True)
    largest_S = torch.linalg.eigvalsh(centred_SKK)[:, -1]
    return mean_of(inputs_NP, members_SK[int(largest_S.argmin())].tolist())
