"""Crafted against one rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.perturbation import pair_squares
from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View

_SMALLEST_LAMBDA = 1e-5
_REACH = 2.0


@attack(
    "fang",
    acts_on="gradient",
    source="Fang et al. 2020, sections 4.2 (Krum) and 4.3 (trimmed mean)",
    examples=({}, {"against": "trimmed_mean"}),
    choices={"against": ("krum", "trimmed_mean")},
)
def fang(gradient_D: Tensor, view: View, *, against: str = "krum") -> Tensor:
    """A gradient that pushes every coordinate the wrong way, as far as the rule it is made for lets it.

    Args:
        gradient_D: own honest gradient, float32.
        against: `krum`: `-lambda sign(mu)` with the largest lambda, halved from an upper bound, that Krum on the whole
            vector selects; `trimmed_mean`: each coordinate just beyond the honest extreme on the wrong side.

    Source: Fang et al. 2020 (arXiv 1911.11815), the full-knowledge forms, with gradients in place of local models.
    """
    honest_HD = view.honest_gradients()
    if not len(honest_HD):
        return gradient_D
    return _against_krum(honest_HD, view) if against == "krum" else _against_trimmed_mean(honest_HD, view)


def _against_krum(honest_HD: Tensor, view: View) -> Tensor:
    """Section 4.2, with theorem 1's bound on lambda and its stopping threshold of 1e-5."""
    sign_D, attackers = honest_HD.mean(dim=0).sign(), view.colluders
    count = len(honest_HD) + attackers
    near = max(1, min(count - attackers - 2, len(honest_HD) - 1))
    nearest = pair_squares(honest_HD).sqrt().sort(dim=1).values[:, 1 : near + 1].sum(dim=1)
    root = float(honest_HD.shape[1] ** 0.5)
    within = float(nearest.min()) / max(1, count - 2 * attackers - 1) if len(honest_HD) > 1 else 0.0
    factor = (within + float(honest_HD.double().norm(dim=1).max())) / root
    while factor > _SMALLEST_LAMBDA and not _krum_selects(-factor * sign_D, honest_HD, attackers):
        factor /= 2
    return -factor * sign_D


def _krum_selects(crafted_D: Tensor, honest_HD: Tensor, attackers: int) -> bool:
    """True if Krum prefers the crafted row, sent by all attackers, to every honest one."""
    import torch

    rows_ND = torch.cat([crafted_D.expand(attackers, -1), honest_HD])
    near = max(1, len(rows_ND) - attackers - 2)
    scores_N = pair_squares(rows_ND).sort(dim=1).values[:, 1 : near + 1].sum(dim=1)
    return int(scores_N.argmin()) < attackers


def _against_trimmed_mean(honest_HD: Tensor, view: View) -> Tensor:
    """Section 4.3: uniform between the extreme and twice (or half) of it, b = 2."""
    import torch

    low_D, high_D = honest_HD.min(dim=0).values, honest_HD.max(dim=0).values
    lots_D = low_D.new_empty(low_D.shape).uniform_(generator=view.random("fang"))
    below_D = torch.where(low_D > 0, low_D / _REACH, low_D * _REACH)
    above_D = torch.where(high_D > 0, high_D * _REACH, high_D / _REACH)
    rising_D = honest_HD.mean(dim=0) > 0
    extreme_D, beyond_D = torch.where(rising_D, low_D, high_D), torch.where(rising_D, below_D, above_D)
    return extreme_D + lots_D * (beyond_D - extreme_D)
