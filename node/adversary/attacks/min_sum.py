"""As far out in total as the most remote honest row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import DIRECTIONS, farthest_within, pair_squares, perturbation
from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "min_sum",
    acts_on="gradient",
    source="Shejwalkar and Houmansadr 2021, section IV-C (Min-Sum)",
    examples=({}, {"along": "unit"}, {"along": "sign"}),
    choices={"along": DIRECTIONS},
)
def min_sum(gradient_D: Tensor, view: View, *, along: str = "std") -> Tensor:
    """`mu + gamma p`, gamma the largest whose summed squared distances to the honest rows no honest row exceeds.

    Args:
        gradient_D: own honest gradient, float32.
        along: p: `std` minus the honest deviations, `unit` minus mu / ||mu||, `sign` minus sign(mu).

    Source: Shejwalkar and Houmansadr 2021 (NDSS), equation 9: `sum_i ||m - g_i||^2 <= max_i sum_j ||g_i - g_j||^2`; a
    quadratic in gamma, which is solved instead of searched.
    """
    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    mean_D, along_D = honest_HD.mean(dim=0), perturbation(honest_HD, along)
    offsets_HD = (mean_D - honest_HD).double()
    limit = float(pair_squares(honest_HD).sum(dim=1).max())
    gamma = farthest_within(
        len(honest_HD) * float(along_D.double().square().sum()),
        float((offsets_HD @ along_D.double()).sum()),
        float(offsets_HD.square().sum()) - limit,
    )
    return mean_D + gamma * along_D
