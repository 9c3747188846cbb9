"""A random gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack("random", acts_on="gradient", source="this project", examples=({}, {"scale": 100.0}))
def random(gradient_D: Tensor, view: View, *, scale: float = 1.0) -> Tensor:
    """A Gaussian vector instead of the gradient, fresh at each step and attacker.

    Args:
        gradient_D: own honest gradient, float32.
        scale: length of the vector, in units of ||g||: at 1 its norm gives nothing away.

    Source: this project; the validator's recomputation finds it.
    """
    return direction(gradient_D, view.random("random")).mul_(scale * float(gradient_D.norm()))
