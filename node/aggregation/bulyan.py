"""Krum, and then what its choices agree on."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.krum import scores
from btard.node.aggregation.meamed import nearest_to_median
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import blocks, check_rows, to_float32
from btard.node.aggregation.strength import Condition, faults
from btard.node.aggregation.subsets import pair_squares

CONDITION = Condition("n >= 4f + 3", lambda f: 4 * f + 3)


@rule("bulyan", source="El Mhamdi et al. 2018, section 4", residual=None, condition=CONDITION, examples=({}, {"f": 0}))
def bulyan(inputs_NP: Tensor, *, f: int | None = None, allow_weak: bool = False) -> Tensor:
    """Krum picks n - 2f rows one by one; every coordinate averages the n - 4f of their values nearest to the median.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        f: Byzantine rows to withstand; none: as many as the condition admits.
        allow_weak: work where the condition fails.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or n < 4f + 3.

    Source: El Mhamdi, Guerraoui and Rouault 2018 (arXiv 1802.07927), section 4.
    """
    check_rows(inputs_NP)
    rows, columns = inputs_NP.shape
    withstood = faults("bulyan", rows, f, CONDITION, allow_weak)
    chosen = _picked(pair_squares(inputs_NP), rows - 2 * withstood, withstood)
    kept = max(1, len(chosen) - 2 * withstood)
    value_P = torch.empty(columns, dtype=torch.float32)
    for block in blocks(rows, columns):
        value_P[block] = nearest_to_median(inputs_NP[chosen, block], kept)
    return to_float32(value_P)


def _picked(squares_NN: Tensor, count: int, f: int) -> list[int]:
    """The rows that Krum picks when each pick leaves the field."""
    left = list(range(len(squares_NN)))
    chosen: list[int] = []
    while len(chosen) < count:
        among = scores(squares_NN[left][:, left], f) if len(left) > 1 else torch.zeros(1)
        chosen.append(left.pop(int(among.argmin())))
    return sorted(chosen)
