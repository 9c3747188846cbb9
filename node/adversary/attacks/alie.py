"""A little is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import alie_factor, deviation
from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "alie",
    acts_on="gradient",
    source="Baruch et al. 2019 (A Little Is Enough), algorithm 3",
    examples=({"z": 1.0}, {}),
)
def alie(gradient_D: Tensor, view: View, *, z: float | None = None) -> Tensor:
    """`mu - z sigma`: every coordinate moves by as many deviations as the honest rows' own spread hides.

    Args:
        gradient_D: own honest gradient, float32.
        z: deviations; none: `Phi^-1((n-b-s)/(n-b))` with `s = floor(n/2+1) - b`, for the n contributors and b attackers
            of the step (0, so no attack, at n=6 and b=2).

    Source: Baruch, Baruch and Goldberg 2019 (arXiv 1902.06156), algorithm 3; mu and sigma (population form) are those
    of the honest gradients of this step.
    """
    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    factor = alie_factor(len(honest_HD), view.colluders) if z is None else z
    return honest_HD.mean(dim=0) - factor * deviation(honest_HD)
