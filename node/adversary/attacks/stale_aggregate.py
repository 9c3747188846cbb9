"""An old aggregate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "stale_aggregate",
    acts_on="aggregate",
    source="report, section 7 (aggregation attacks); this project",
    examples=({}, {"delay": 2}),
    remembers="delay",
)
def stale_aggregate(value_P: Tensor, view: View, *, delay: int = 1) -> Tensor:
    """The aggregator reports what its part came to some steps ago.

    Args:
        value_P: the true aggregate of this attacker's part, float32.
        delay: steps; where no aggregate of that step and size is at hand, the true one is reported.

    Source: this project; V2 finds it, because the clipped differences no longer sum to zero.
    """
    old_P = view.aggregates.get(view.step - delay)
    return value_P if old_P is None or old_P.shape != value_P.shape else old_P
