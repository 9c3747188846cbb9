"""Different aggregates to different peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen
from btard.node.adversary.view import direction
from btard.node.protocol.api import BulkKind, SendBulk

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "split_aggregate",
    acts_on="outputs",
    source="report, section 7 (aggregation attacks); Gorbunov et al. 2021, section 3.1",
    examples=({}, {"to": "all_but_one", "scale": 0.1}),
    choices={"to": TARGETS},
)
def split_aggregate(
    output: Output, view: View, *, to: str = "half", scale: float = 1.0, apart: bool = False
) -> Sequence[Output]:
    """Some peers get another aggregate than the one that the attacker committed to.

    Args:
        to: who gets the false bytes.
        scale: length of the difference, in units of ||v||.
        apart: attackers choose different peers.

    Source: PROTOCOL section 9, "an aggregate sent differently: only the committed bytes count".
    """
    match output:
        case SendBulk(key=key, values_P=value_P) if key.kind is BulkKind.AGGREGATE and key.owner == view.me:
            if output.to in chosen(view, to, apart):
                length = scale * max(float(value_P.norm()), 1.0)
                shift = direction(value_P, view.shared_random("split_aggregate")).mul_(length)
                return (replace(output, values_P=value_P + shift),)
    return (output,)
