"""A little is enough, as much of it as works."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import deviation
from btard.node.adversary.registry import attack
from btard.node.adversary.search import strongest

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "alie_optimised",
    acts_on="gradient",
    source="Allouah et al. 2023, section 6 (ALIE with the factor searched for); Baruch et al. 2019",
    examples=({}, {"evaluations": 12}),
)
def alie_optimised(gradient_D: Tensor, view: View, *, evaluations: int = 20) -> Tensor:
    """`mu - z sigma` with the z that moves the aggregate of the rule in use farthest from mu.

    Args:
        gradient_D: own honest gradient, float32.
        evaluations: 10 octaves and the rounds of the search; the rule is computed 2 evaluations - 10 times at most.

    Source: Allouah et al. 2023 (arXiv 2302.01772), section 6: the factor of ALIE by a line search.
    """
    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    mean_D, sigma_D = honest_HD.mean(dim=0), deviation(honest_HD)
    return strongest(lambda z: mean_D - z * sigma_D, view, honest_HD, evaluations)
