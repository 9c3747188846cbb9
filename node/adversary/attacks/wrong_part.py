"""Bytes other than the committed ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen
from btard.node.protocol.api import BulkKind, SendBulk

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "wrong_part",
    acts_on="outputs",
    source="PROTOCOL section 5",
    examples=({}, {"to": "one", "again": True}),
    choices={"to": TARGETS},
)
def wrong_part(
    output: Output, view: View, *, to: str = "all", again: bool = False, apart: bool = False
) -> Sequence[Output]:
    """Aggregators get other bytes of their part than the attacker committed to.

    Args:
        to: which aggregators.
        again: publish wrong bytes, too, when one of them complains.
        apart: attackers choose different aggregators.

    Source: PROTOCOL section 9, "a part other than the committed one, or none: complaint; published or removed".
    """
    match output:
        case SendBulk(key=key) if key.owner == view.me:
            first = key.kind is BulkKind.PART and output.to in chosen(view, to, apart)
            later = again and key.kind is BulkKind.PUBLICATION and output.to not in view.accomplices
            return (replace(output, values_P=2.0 * output.values_P + 1.0),) if first or later else (output,)
    return (output,)
