"""Infinite entries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack("infinite", acts_on="gradient", source="this project", examples=({}, {"value": -1e30, "entries": 1}))
def infinite(gradient_D: Tensor, view: View, *, value: float = math.inf, entries: int = 3) -> Tensor:
    """Some entries of the gradient are infinite, or so large that the arithmetic of others would overflow.

    Args:
        gradient_D: own honest gradient, float32.
        value: of the entries.
        entries: how many, spread evenly (at least one, at most all).

    Source: PROTOCOL section 5: "content that does match its digest but is non-finite or exceeds 2^40 in magnitude is
    proof once published".
    """
    result = gradient_D.clone()
    apart = max(1, result.numel() // max(1, entries))
    result[: max(1, entries) * apart : apart] = value
    return result
