"""The search for an attack's factor against the rule in use: the rule is public, and so are the honest gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View

_OCTAVES = tuple(range(-4, 6))
_GOLDEN = (math.sqrt(5) - 1) / 2


def strongest(
    craft: Callable[[float], Tensor], view: View, honest_HD: Tensor, evaluations: int, entry: int | None = None
) -> Tensor:
    """The crafted gradient that moves the aggregate farthest from the honest mean when all attackers send it.

    Factors 1/16 to 32 are tried by octaves, then a golden-section search (in the logarithm) refines around the best:
    the damage grows with the factor until the rule discards the row, so it has one peak in practice.

    Args:
        craft: the gradient `[D]` for a factor.
        evaluations: what the search may spend: each of the 10 octaves takes one, each round of the golden section
            another. A round tries one or two new factors, so the rule is computed 2 evaluations - 10 times at most,
            and never less than 10 times.
        entry: damage is the distance in this coordinate alone, not the L2 distance.

    Raises:
        LookupError: this attacker cannot compute the rule.
    """
    mean_D = honest_HD.mean(dim=0)

    def damage(exponent: float) -> float:
        moved_D = view.aggregate_with(honest_HD, craft(2.0**exponent)) - mean_D
        return float(moved_D.norm()) if entry is None else abs(float(moved_D[entry]))

    found = {float(octave): damage(octave) for octave in _OCTAVES}
    best = max(found, key=found.__getitem__)
    low, high = best - 1, best + 1
    for _ in range(evaluations - len(found)):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        for inner in (left, right):
            if inner not in found:
                found[inner] = damage(inner)
        if found[left] >= found[right]:
            high = right
        else:
            low = left
    return craft(2.0 ** max(found, key=found.__getitem__))
