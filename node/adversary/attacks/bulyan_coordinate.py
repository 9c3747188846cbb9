"""One coordinate, as far as the rule lets it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import spread
from btard.node.adversary.registry import attack
from btard.node.adversary.search import strongest

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "bulyan_coordinate",
    acts_on="gradient",
    source="El Mhamdi et al. 2018, section 3 (the hidden vulnerability)",
    examples=({}, {"coordinate": 3}),
)
def bulyan_coordinate(gradient_D: Tensor, view: View, *, coordinate: int = -1, evaluations: int = 20) -> Tensor:
    """`mu + gamma e_j`: distances barely notice one coordinate of many, so gamma may be of the order of sqrt(D).

    Args:
        gradient_D: own honest gradient, float32.
        coordinate: j, modulo D; negative: drawn once from the attackers' common seed.
        evaluations: 10 octaves and the rounds of the search for the gamma that moves v_j farthest; the rule is computed
            2 evaluations - 10 times at most.

    Source: El Mhamdi, Guerraoui and Rouault 2018 (arXiv 1802.07927), section 3.2, with the finite norm p = 2.
    """
    import torch

    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    mean_D, size = honest_HD.mean(dim=0), gradient_D.numel()
    drawn = int(torch.randint(size, (), generator=view.shared_random("bulyan_coordinate")))
    place = drawn if coordinate < 0 else coordinate % size
    unit = spread(honest_HD)

    def craft(gamma: float) -> Tensor:
        crafted_D = mean_D.clone()
        crafted_D[place] += gamma * unit
        return crafted_D

    return strongest(craft, view, honest_HD, evaluations, entry=place)
