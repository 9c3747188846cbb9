"""Entries that are no numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack("nan", acts_on="gradient", source="this project", examples=({}, {"entries": 1}))
def nan(gradient_D: Tensor, view: View, *, entries: int = 3) -> Tensor:
    """Some entries of the gradient are NaN: one of them would make every mean, norm and product NaN.

    Args:
        gradient_D: own honest gradient, float32.
        entries: how many, spread evenly (at least one, at most all).

    Source: PROTOCOL section 5: "non-finite [content] is proof once published".
    """
    result = gradient_D.clone()
    apart = max(1, result.numel() // max(1, entries))
    result[: max(1, entries) * apart : apart] = math.nan
    return result
