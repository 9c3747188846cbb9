"""The arithmetic mean: what an undefended all-reduce computes."""

from __future__ import annotations

import torch
from torch import Tensor

from node.aggregation.registry import rule
from node.aggregation.rows import check_rows, combine, to_float32


@rule("mean", source="plain all-reduce; the undefended baseline", residual="unclipped", examples=({},))
def mean(inputs_NP: Tensor) -> Tensor:
    """Average of all rows, summed in float64; one attacker moves it as far as it likes.

    Args:
        inputs_NP: float32 `[N, P]`, finite.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, or not finite.
    """
    check_rows(inputs_NP)
    rows = inputs_NP.shape[0]
    # The division comes last: 1/N is not a float64 number, the sum of equal rows is exact.
    return to_float32(combine(inputs_NP, torch.ones(rows, dtype=torch.float64)).div_(rows))
