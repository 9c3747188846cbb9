"""No contribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack("zero", acts_on="gradient", source="this project", examples=({},))
def zero(gradient_D: Tensor, view: View) -> Tensor:
    """The attacker contributes nothing: a gradient of zeros, without the work of computing one.

    Args:
        gradient_D: own honest gradient, float32.

    Source: this project; the validator's recomputation finds it.
    """
    return gradient_D.new_zeros(gradient_D.shape)
