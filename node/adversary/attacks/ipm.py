"""Inner-product manipulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "ipm",
    acts_on="gradient",
    source="Xie et al. 2020 (Fall of Empires)",
    examples=({}, {"eps": 0.6}),
)
def ipm(gradient_D: Tensor, view: View, *, eps: float = 0.1) -> Tensor:
    """`-eps mu`, mu the mean of the honest gradients: small, and it points backwards.

    Args:
        gradient_D: own honest gradient, float32.
        eps: 0.1 slips through distance-based rules; above (n-b)/b it turns a plain mean around.

    Source: Xie, Koyejo and Gupta 2020 (arXiv 1903.03936), section 4: `-eps/|H| sum of the honest gradients`.
    """
    honest_HD = view.honest_gradients()
    return honest_HD.mean(dim=0).mul_(-eps) if len(honest_HD) else gradient_D
