"""Silence in one phase."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.protocol.api import Forward, Say
from btard.node.protocol.wire.messages import Phase

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "stall",
    acts_on="outputs",
    source="PROTOCOL section 4",
    examples=({}, {"phase": "AGG", "to": "half"}),
    choices={"phase": tuple(phase.name for phase in Phase if phase not in (Phase.HELLO, Phase.JOIN)), "to": TARGETS},
)
def stall(
    output: Output, view: View, *, phase: str = "CHECKSUMS", to: str = "all", apart: bool = False
) -> Sequence[Output]:
    """One phase's message never goes out, or not to everyone; accomplices get it, and pass nothing on.

    Args:
        phase: of the message that is withheld.
        to: from whom.
        apart: attackers choose different peers.

    Source: PROTOCOL section 9, "silence in any phase, toward all or some: SUSPECT, forward; f+1 -> gone".
    """
    if isinstance(output, Forward):
        return ()
    if not isinstance(output, Say) or output.body.slot.phase.name != phase:
        return (output,)
    return told_apart(output, None, chosen(view, to, apart))
