"""A wrong aggregate, the same to everyone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "shift_aggregate",
    acts_on="aggregate",
    source="report, section 7 (aggregation attacks); Gorbunov et al. 2021, section 3.1",
    examples=({}, {"scale": 0.5, "relative": False}),
)
def shift_aggregate(value_P: Tensor, view: View, *, scale: float = 1.0, relative: bool = True) -> Tensor:
    """The aggregator reports `v + delta`, delta along a direction that the attackers share.

    Args:
        value_P: the true aggregate of this attacker's part, float32.
        scale: length of delta: in units of ||v|| (`relative`), else an L2 norm.

    Source: this project; PROTOCOL section 9, "a wrong aggregate to all": V2 finds
    it, because the clipped differences no longer sum to zero.
    """
    length = scale * float(value_P.norm()) if relative else scale
    return value_P + direction(value_P, view.shared_random("shift_aggregate")).mul_(length)
