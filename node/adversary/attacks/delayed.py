"""An old gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "delayed",
    acts_on="gradient",
    source="Gorbunov et al. 2021, section 4.1 (delayed gradient)",
    examples=({"delay": 2}, {"delay": 1}),
    remembers="delay",
)
def delayed(gradient_D: Tensor, view: View, *, delay: int = 1000) -> Tensor:
    """Own honest gradient of some steps ago; where none is that old, the oldest at hand.

    Args:
        gradient_D: own honest gradient of this step, float32.
        delay: steps; the node keeps that many gradients in memory.

    Source: Gorbunov et al. 2021 (arXiv 2106.11257), section 4.1: "peers send old gradients, delayed by 1000 steps".
    """
    old = [step for step in view.history if step <= view.step - delay]
    if old:
        return view.history[max(old)]
    return view.history[min(view.history)] if view.history else gradient_D
