"""A node that dies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen
from btard.node.protocol.api import Endorse, Forward, PhaseEntered, RequestBulk, Say, SendBulk

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_HEARD = (Say, Forward, Endorse, SendBulk, RequestBulk)


@attack(
    "crash",
    acts_on="node",
    source="PROTOCOL section 1 (Byzantine or crashed)",
    examples=({}, {"phase": "REPORT"}, {"phase": "AGG", "to": "one"}),
    choices={"to": ("nobody", *TARGETS)},
)
class Crash(Behaviour):
    """From the first attacked step on the node says nothing at all, whatever the schedule says later.

    Args:
        phase: the phase of that step in which it dies.
        to: who still gets that phase's message: it dies between signing it and sending it to the others.

    Source: PROTOCOL section 9, "silence in any phase; crash between signing and sending: gone".
    """

    def __init__(self, *, phase: str = "COMMIT", to: str = "nobody") -> None:
        self._phase, self._to = phase, to

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Nothing that others could hear; what the peer reports of itself passes, so that its process ends in order."""
        if self.lasting:
            return () if isinstance(output, _HEARD) else (output,)
        match output:
            case PhaseEntered(phase=phase) if phase == self._phase and self._to == "nobody":
                self.lasting = True
            case Say(to=to, body=body) if body.slot.phase.name == self._phase:
                self.lasting = True
                last = tuple(peer for peer in to if peer in chosen(view, self._to))
                return (Say(last, body),) if last else ()
        return (output,)
