"""A view that accomplices keep among themselves until the last instant of a round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.errors import WireError
from btard.node.protocol.api import Disputed, Endorse, Say, SetTimer
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import View

if TYPE_CHECKING:
    from btard.node.adversary.view import View as Knowledge
    from btard.node.protocol.api import Output


@attack(
    "late_view",
    acts_on="node",
    source="Dolev and Strong 1983; PROTOCOL section 4",
    examples=({}, {"to": "half"}),
    choices={"to": TARGETS},
)
class LateView(Behaviour):
    """In a dispute attackers keep their views among themselves until the last instant at which these still count.

    Whoever relays one does so at the end of the latest round in which its chain of signatures is long enough, to a
    chosen few.

    Args:
        to: who gets it.
        before_s: seconds before the round's end.

    Source: PROTOCOL section 9, "views at the last instant of each round: equal unions".
    """

    def __init__(self, *, to: str = "one", before_s: float = 0.05) -> None:
        self._to, self._before_s = to, before_s
        self._round = 0
        self._held: list[tuple[int, Output]] = []

    def said(self, output: Output, view: Knowledge) -> Sequence[Output]:
        """Holds views, the own one and accomplices'; counts the rounds by the peer's own timer."""
        match output:
            case Disputed():
                self._round, self._held = 0, []
            case SetTimer(name=name, after_s=after_s) if self._times(name, view):
                self._round += 1
                return (output, SetTimer(self.timer("release"), max(after_s - self._before_s, 0.0)))
            case Say(body=View()):
                # Accomplices relay it one round later; without them this is the last chance.
                alone = len([peer for peer in view.peers if peer in view.accomplices]) < 2
                if alone:
                    self._held.append((1, Say(chosen(view, self._to), output.body)))
                return told_apart(output, None, chosen(view, "all"))
            case Endorse() if _owner(output) in view.accomplices:
                last = 2 + len(output.endorsed.endorsements)
                self._held.append((last, Endorse(chosen(view, self._to), output.endorsed)))
                return ()
        return (output,)

    def rang(self, name: str, view: Knowledge) -> Sequence[Output]:
        """A round is about to end."""
        due = [held for last, held in self._held if last <= self._round]
        self._held = [(last, held) for last, held in self._held if last > self._round]
        return due

    def _times(self, name: str, view: Knowledge) -> bool:
        attempt = view.attempt
        return attempt is not None and name == round_timer(attempt.step, attempt.number)


def _owner(endorse: Endorse) -> int | None:
    try:
        return decode_body(endorse.endorsed.view.body).slot.sender
    except WireError:
        return None
