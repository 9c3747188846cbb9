"""As far out as nothing is clipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import DIRECTIONS, perturbation
from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "below_tau",
    acts_on="gradient",
    source="this project; Karimireddy et al. 2021, section 4 (what clipping at tau lets pass)",
    examples=({}, {"along": "std", "share": 0.5}),
    choices={"along": DIRECTIONS},
)
def below_tau(gradient_D: Tensor, view: View, *, share: float = 1.0, along: str = "unit") -> Tensor:
    """In each part `mu + share tau_j (n/h) p`, which is `share tau_j` away from the aggregate if all attackers send it.

    Args:
        gradient_D: own honest gradient, float32.
        share: of the radius that it uses up; above 1 it is clipped.
        along: p, as long as 1 in each part: `std` against the honest deviations, `unit` against mu, `sign` against its
            signs.

    Source: this project. Of n contributors h are honest, with mean mu; where nobody is clipped the aggregate is the
    mean of all, `mu + share tau_j (b/h) p` with b = n - h, from which `mu + share tau_j (n/h) p` is `share tau_j` away.
    """
    import torch

    honest_HD, attempt = view.honest_gradients(), view.attempt
    if not len(honest_HD) or attempt is None:
        return gradient_D
    mean_D, along_D = honest_HD.mean(dim=0), perturbation(honest_HD, along)
    reach = share * len(view.contributing) / len(honest_HD)
    moved_D = mean_D.clone()
    for (start, stop), radius in zip(attempt.split.bounds, attempt.radii, strict=True):
        moved_D[start:stop] += reach * radius * torch.nn.functional.normalize(along_D[start:stop], dim=0)
    return moved_D
