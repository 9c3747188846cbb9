"""A node that dies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from node.attacks.behaviour import Behaviour
from node.attacks.registry import attack
from node.protocol.events import Endorse, Forward, PhaseEntered, RequestBulk, Say, SendBulk

if TYPE_CHECKING:
    from node.attacks.view import View
    from node.protocol.events import Output


@attack(
    "crash",
    acts_on="node",
    source="PROTOCOL section 1 (Byzantine or crashed)",
    examples=({}, {"phase": "REPORT"}),
)
class Crash(Behaviour):
    """From the first attacked step on the node says nothing at all, whatever the schedule says later.

    Args:
        phase: the phase of that step in which it dies.

    Source: PROTOCOL section 9, "silence in any phase; crash: gone".
    """

    def __init__(self, *, phase: str = "COMMIT") -> None:
        self._phase = phase

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Nothing that others could hear; what the peer reports of itself passes, so that its process ends in order."""
        if isinstance(output, PhaseEntered) and output.phase == self._phase:
            self.lasting = True
        speaks = isinstance(output, Say | Forward | Endorse | SendBulk | RequestBulk)
        return () if self.lasting and speaks else (output,)
