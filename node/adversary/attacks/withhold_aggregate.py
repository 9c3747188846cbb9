"""An aggregate that does not arrive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen
from btard.node.protocol.api import BulkKind, SendBulk

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "withhold_aggregate",
    acts_on="outputs",
    source="report, section 7 (aggregation attacks); PROTOCOL section 3 (HAVE)",
    examples=({}, {"to": "one"}),
    choices={"to": TARGETS},
)
def withhold_aggregate(output: Output, view: View, *, to: str = "all", apart: bool = False) -> Sequence[Output]:
    """Peers do not get the aggregate of the attacker's part, nor when they ask for it; accomplices say they have it.

    Args:
        to: which peers.
        apart: attackers choose different peers.

    Source: PROTOCOL section 9, "an aggregate withheld from all, from all but one: HAVE bits: pulled from who has it,
    or its aggregator removed".
    """
    match output:
        case SendBulk(key=key) if key.kind is BulkKind.AGGREGATE and key.owner in view.accomplices:
            return () if output.to in chosen(view, to, apart) else (output,)
    return (output,)
