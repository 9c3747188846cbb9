"""Amplified sign flip."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "sign_flip",
    acts_on="gradient",
    source="Gorbunov et al. 2021, section 4.1; report, section 5.4 (Amplified Sign Flip)",
    examples=({}, {"scale": 1.0}),
)
def sign_flip(gradient_D: Tensor, view: View, *, scale: float = 1000.0) -> Tensor:
    """The opposite of the true gradient, amplified: `-scale g`.

    Args:
        gradient_D: own honest gradient, float32.
        scale: amplification, so that it weighs more where the rule does not clip.

    Source: report, section 5.4: "the opposite of its true gradient, amplified by 1000".
    """
    return -scale * gradient_D
