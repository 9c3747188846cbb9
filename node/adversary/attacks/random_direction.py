"""Amplified random direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "random_direction",
    acts_on="gradient",
    source="Gorbunov et al. 2021, section 4.1 (random direction)",
    examples=({}, {"scale": 10.0}),
)
def random_direction(gradient_D: Tensor, view: View, *, scale: float = 1000.0) -> Tensor:
    """All attackers send `scale ||g|| u` with a common random direction u, a fresh one at each step.

    Args:
        gradient_D: own honest gradient, float32.
        scale: length of the vector, in units of ||g||.

    Source: Gorbunov et al. 2021 (arXiv 2106.11257), section 4.1: "large vectors pointed to a common random direction";
    `constant_direction` keeps u for the whole run.
    """
    shared = view.shared_random(f"random_direction {view.step}")
    return direction(gradient_D, shared).mul_(scale * float(gradient_D.norm()))
