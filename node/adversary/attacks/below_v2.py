"""As wrong an aggregate as V2 lets pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.view import direction
from btard.node.protocol.attempt.verification import V2_FACTOR

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View


@attack(
    "below_v2",
    acts_on="aggregate",
    source="this project; PROTOCOL section 8 (V2's tolerance)",
    examples=({}, {"share": 0.05}),
)
def below_v2(value_P: Tensor, view: View, *, share: float = 0.2) -> Tensor:
    """The aggregator reports `v + delta`, delta too short for V2: `share tol_j / sum_i w_i`, along a shared direction.

    Args:
        value_P: the true aggregate of this attacker's part, float32.
        share: of the length at which one standard deviation of `<z, sum_i w_i delta>` is V2's tolerance. At the default
            the tolerance is five of them, and V2 fails in 6 of 10 million parts.

    Source: this project; PROTOCOL section 8: "a shift e of the aggregate is missed with probability about
    `0.8 tol / (k ||e||)`, k = unclipped contributors", here k = `sum_i w_i`, `w_i = min(1, tau_j / ||x_i - v||)`.
    """
    attempt = view.attempt
    if attempt is None or not attempt.parts:
        return value_P
    rule, radius = attempt.tools.rule, attempt.clip_radii[attempt.place]
    norms = [float((part_P - value_P).norm()) for part_P in attempt.parts.values()]
    slack = rule.slack(norms, radius) + attempt.settings.precision.relative * float(value_P.norm())
    weight = sum(1.0 if norm <= radius else radius / norm for norm in norms)
    length = share * V2_FACTOR * len(norms) * slack / weight
    return value_P + direction(value_P, view.shared_random("below_v2")).mul_(length)
