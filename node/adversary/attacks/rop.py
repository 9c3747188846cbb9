"""Relocated orthogonal perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import spread
from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "rop",
    acts_on="gradient",
    source="Ozfatura et al. 2024 (Fall of Centered Clipping)",
    examples=({}, {"angle_deg": 180.0, "relocation": 0.0}),
)
def rop(
    gradient_D: Tensor, view: View, *, scale: float = 1.0, angle_deg: float = 90.0, relocation: float = 0.9
) -> Tensor:
    """A step sideways from where the rule's centre is: `r + z (sin a p + cos a r/||r||)`, p orthogonal to r.

    Args:
        gradient_D: own honest gradient, float32.
        scale: z, in units of the largest distance of an honest gradient to their mean.
        angle_deg: a; 90 is at a right angle to r, 180 against it.
        relocation: share of mu in the reference r; the rest is the direction in which the run has moved so far.

    Source: Ozfatura et al. 2024 (arXiv 2208.09894), algorithm 2. Their reference mixes mu with the last broadcast
    aggregate; here the agreed momentum, scaled to ||mu||, stands for it. p is drawn from the attackers' common seed.
    """
    import torch

    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    mean_D = honest_HD.mean(dim=0)
    reference_D = relocation * mean_D + (1 - relocation) * _past(mean_D, view)
    unit_D = torch.nn.functional.normalize(reference_D, dim=0)
    drawn_D = direction(mean_D, view.shared_random("rop"))
    sideways_D = torch.nn.functional.normalize(drawn_D - (drawn_D @ unit_D) * unit_D, dim=0)
    angle = torch.deg2rad(torch.tensor(angle_deg))
    return reference_D + scale * spread(honest_HD) * (angle.sin() * sideways_D + angle.cos() * unit_D)


def _past(mean_D: Tensor, view: View) -> Tensor:
    """The agreed momentum at the length of mu; mu itself where there is none yet."""
    if view.attempt is None:
        return mean_D
    moved_D = view.attempt.state.optimiser_D[: len(mean_D)]
    norm = float(moved_D.norm())
    return moved_D * (float(mean_D.norm()) / norm) if norm > 0 and len(moved_D) == len(mean_D) else mean_D
