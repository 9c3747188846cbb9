"""Statistics of the honest gradients that colluding attacks are made of."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

DIRECTIONS = ("std", "unit", "sign")
"""Perturbation directions of Shejwalkar and Houmansadr 2021, section IV-B, all of them backwards."""


def deviation(honest_HD: Tensor) -> Tensor:
    """Standard deviation of every coordinate over the H honest rows (population form), `[D]`."""
    return honest_HD.std(dim=0, correction=0)


def alie_factor(honest: int, attackers: int) -> float:
    """`z = Phi^-1((n-b-s)/(n-b))` with `s = floor(n/2+1) - b`, for n = honest + attackers.

    Where the attackers need no honest supporter any more (s < 1), s counts as 1; with one honest row z is 0.

    Source: Baruch et al. 2019 (arXiv 1902.06156), algorithm 3.
    """
    supporters = max(1, (honest + attackers) // 2 + 1 - attackers)
    share = (honest - supporters) / honest
    return NormalDist().inv_cdf(share) if 0 < share < 1 else 0.0


def perturbation(honest_HD: Tensor, along: str) -> Tensor:
    """One of `DIRECTIONS`, `[D]`."""
    import torch

    mean_D = honest_HD.mean(dim=0)
    match along:
        case "unit":
            return -torch.nn.functional.normalize(mean_D, dim=0)
        case "sign":
            return -mean_D.sign()
        case _:
            return -deviation(honest_HD)


def pair_squares(rows_ND: Tensor) -> Tensor:
    """Squared distances between all rows, float64 `[N, N]`."""
    import torch

    squares = [(rows_ND - row_D).double().square().sum(dim=1) for row_D in rows_ND]
    return torch.stack(squares)


def spread(honest_HD: Tensor) -> float:
    """Largest distance of an honest row to their mean."""
    return float((honest_HD - honest_HD.mean(dim=0)).norm(dim=1).max())


def farthest_within(square: float, product: float, rest: float) -> float:
    """The largest gamma with `square gamma^2 + 2 product gamma + rest <= 0`; 0 if there is none above."""
    if square == 0:
        return 0.0
    root = product * product - square * rest
    return max(0.0, (math.sqrt(root) - product) / square) if root > 0 else 0.0
