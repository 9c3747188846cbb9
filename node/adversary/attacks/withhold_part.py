"""A part that does not arrive, or a publication."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen
from btard.node.protocol.api import BulkKind, SendBulk

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_NOBODY = "nobody"
"""Every part arrives: what is withheld are publications alone."""


@attack(
    "withhold_part",
    acts_on="outputs",
    source="Gorbunov et al. 2021, section 3.2 (ELIMINATE); PROTOCOL section 5",
    examples=({}, {"to": "one", "again": True}, {"to": _NOBODY, "again": True}),
    choices={"to": (*TARGETS, _NOBODY), "published_to": TARGETS},
)
def withhold_part(
    output: Output, view: View, *, to: str = "all", again: bool = False, published_to: str = "all", apart: bool = False
) -> Sequence[Output]:
    """Aggregators do not get the attacker's part.

    Args:
        to: which aggregators.
        again: do not publish it either when one of them complains, nor a gradient by which this peer is judged.
        published_to: from whom a publication is withheld.
        apart: attackers choose different aggregators.

    Source: PROTOCOL section 9, "a part other than the committed one, or none: complaint; published or removed".
    """
    match output:
        case SendBulk(key=key) if key.owner == view.me:
            first = key.kind is BulkKind.PART and to != _NOBODY and output.to in chosen(view, to, apart)
            later = again and key.kind is BulkKind.PUBLICATION and output.to in chosen(view, published_to, apart)
            return () if first or later else (output,)
    return (output,)
