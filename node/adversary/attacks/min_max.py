"""As far out as the farthest honest pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import DIRECTIONS, farthest_within, pair_squares, perturbation
from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "min_max",
    acts_on="gradient",
    source="Shejwalkar and Houmansadr 2021, section IV-C (Min-Max)",
    examples=({}, {"along": "unit"}, {"along": "sign"}),
    choices={"along": DIRECTIONS},
)
def min_max(gradient_D: Tensor, view: View, *, along: str = "std") -> Tensor:
    """`mu + gamma p` with the largest gamma that keeps it no farther from any honest row than two of those are.

    Args:
        gradient_D: own honest gradient, float32.
        along: p: `std` minus the honest deviations, `unit` minus mu / ||mu||, `sign` minus sign(mu).

    Source: Shejwalkar and Houmansadr 2021 (NDSS), equation 8: `max_i ||m - g_i|| <= max_ij ||g_i - g_j||`; each i
    bounds gamma by a quadratic, which is solved instead of searched.
    """
    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    mean_D, along_D = honest_HD.mean(dim=0), perturbation(honest_HD, along)
    offsets_HD = (mean_D - honest_HD).double()
    limit = float(pair_squares(honest_HD).max())
    gammas = [
        farthest_within(float(along_D.double().square().sum()), float(offset_D @ along_D.double()),
                        float(offset_D.square().sum()) - limit)
        for offset_D in offsets_HD
    ]  # fmt: skip
    return mean_D + min(gammas) * along_D
