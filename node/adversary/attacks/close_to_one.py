"""The last word to one peer alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.protocol.api import Forward, Say
from btard.node.protocol.wire.messages import Close

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "close_to_one",
    acts_on="outputs",
    source="PROTOCOL section 4 (the certificate first)",
    examples=({}, {"to": "two"}),
    choices={"to": TARGETS},
)
def close_to_one(output: Output, view: View, *, to: str = "one") -> Sequence[Output]:
    """CLOSE goes to few: they hold the step's certificate and commit, the others do not yet; attackers forward nothing.

    Args:
        to: the honest peers that get it; accomplices choose the same ones.

    Source: PROTOCOL section 9, "CLOSE to one peer only: the certificate wins; same state everywhere".
    """
    if isinstance(output, Forward):
        return ()
    if not isinstance(output, Say) or not isinstance(output.body, Close):
        return (output,)
    favoured = chosen(view, to)
    others = tuple(peer for peer in output.to if peer not in favoured and peer not in view.accomplices)
    return told_apart(output, None, others)
