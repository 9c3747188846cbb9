"""Amplified constant direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "constant_direction",
    acts_on="gradient",
    source="Gorbunov et al. 2021, section 4.1; report, section 5.4 (Amplified Constant Direction Response)",
    examples=({}, {"scale": 10.0}),
)
def constant_direction(gradient_D: Tensor, view: View, *, scale: float = 1000.0) -> Tensor:
    """All attackers push in one direction: each tensor becomes `scale ||g_tensor|| u`, with the same u for ever.

    Args:
        gradient_D: own honest gradient, float32.
        scale: amplification; u is Gaussian, normalised per tensor, from the attackers' shared seed.

    Source: report, section 5.4: "all send large vectors, amplified by 1000, in the same arbitrary direction. The
    random seed is drawn and passed to all malicious workers just at the start of the training"; per tensor is
    this project's.
    """
    shared = view.shared_random("constant_direction")
    result = gradient_D.clone()
    bounds = [(span.start, span.stop) for span in view.layout] or [(0, gradient_D.numel())]
    for start, stop in bounds:
        norm = float(gradient_D[start:stop].norm())
        result[start:stop] = direction(gradient_D[start:stop], shared).mul_(scale * norm)
    return result
