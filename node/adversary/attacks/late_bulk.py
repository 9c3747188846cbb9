"""Bytes just in time, for a chosen few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen
from btard.node.protocol.api import BulkKind, PhaseEntered, SendBulk, SetTimer
from btard.node.protocol.attempt import deadlines

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_KINDS = {"part": BulkKind.PART, "aggregate": BulkKind.AGGREGATE, "publication": BulkKind.PUBLICATION}


@attack(
    "late_bulk",
    acts_on="node",
    source="PROTOCOL section 4 (deadlines include the wait for bulk)",
    examples=({}, {"kind": "aggregate", "to": "half"}),
    choices={"kind": tuple(_KINDS), "to": TARGETS, "others": ("never", "at once")},
)
class LateBulk(Behaviour):
    """Tensors are held back until just before the receivers stop waiting for them, and then go to a chosen few.

    The attacker knows the instant: its own peer waits for the others' tensors as long.

    Args:
        kind: of the tensors: its gradient's parts, its aggregate, or what it publishes.
        to: who gets them late.
        before_s: seconds before the end of the wait (a tensor in flight takes some of them).
        others: `at once`: the rest gets them in time; `never`: it does not.
        apart: attackers choose different peers.

    Source: PROTOCOL section 9, "a part other than the committed one, or none; an aggregate withheld": some have it,
    some complain of it.
    """

    def __init__(
        self,
        *,
        kind: str = "part",
        to: str = "one",
        before_s: float = 0.05,
        others: str = "at once",
        apart: bool = False,
    ) -> None:
        self._kind, self._to, self._before_s, self._others, self._apart = _KINDS[kind], to, before_s, others, apart
        self._due = False
        self._held: list[Output] = []
        self._next: list[Output] = []

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Times the wait, and holds the tensors."""
        match output:
            case PhaseEntered():
                # Tensors are sent on leaving the phase before the one in which they are awaited.
                self._due, self._held, self._next = False, self._next, []
            case SetTimer(name=deadlines.BULK, after_s=after_s):
                return (output, SetTimer(self.timer("release"), max(after_s - self._before_s, 0.0)))
            case SendBulk(key=key) if key.kind is self._kind and key.owner == view.me and not self._due:
                if output.to in chosen(view, self._to, self._apart):
                    self._next.append(output)
                    return ()
                return (output,) if self._others == "at once" or output.to in view.accomplices else ()
        return (output,)

    def rang(self, name: str, view: View) -> Sequence[Output]:
        """The instant has come."""
        self._due = True
        held, self._held = self._held, []
        return held
