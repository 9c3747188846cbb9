"""Falls silent, comes back on probation, and then misbehaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.protocol.api import Endorse, Forward, PhaseEntered, RequestBulk, RequestTranscript, Say, SendBulk
from btard.node.protocol.wire.messages import Join, Phase

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View
    from btard.node.protocol.api import Input, Output

_HEARD = (Say, Forward, Endorse, SendBulk, RequestBulk)
_AT_ONCE = 4
"""Questions that a flood adds to each message that arrives."""


@attack(
    "rejoin",
    acts_on="node",
    source="Gorbunov et al. 2021, section 3.3; PROTOCOL section 7",
    examples=({}, {"then": "equivocate"}, {"then": "later"}),
    choices={"then": ("gradient", "equivocate", "flood", "later", "silence", "nothing")},
)
class Rejoin(Behaviour):
    """From the first attacked step on the node is silent until it is removed as gone. It asks to come back.

    Args:
        then: on probation it signs the digest of a wrong `gradient`, two JOINs for one step (`equivocate`), or asks
            without end (`flood`); or it serves its probation and computes wrong gradients afterwards (`later`), falls
            silent again (`silence`), or does `nothing` wrong any more.

    Source: PROTOCOL section 9, "gone, probation, back"; section 7, "banned keys never return".
    """

    comes_back = True

    def __init__(self, *, then: str = "gradient") -> None:
        self._then = then
        self._away = self._back = False

    def heard(self, event: Input, view: View) -> Sequence[Output]:
        """A flood of questions, while it is out."""
        if self._then == "flood" and self.lasting and not self._away and not self._back:
            return tuple(RequestTranscript(view.active, 0, number) for number in range(_AT_ONCE))
        return ()

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Silence until the peer inside asks to come back, and again if that is the plan."""
        if not self.lasting:
            self.lasting = self._away = True
        match output:
            case RequestTranscript():
                self._away = False
            case PhaseEntered(phase=Phase.COMMIT.name) if not self._away:
                self._back = True
            case Say(to=to, body=Join() as join) if self._then == "equivocate":
                half = len(to) // 2
                other = replace(join, gradient=bytes(reversed(join.gradient)))
                return (Say(to[:half], join), Say(to[half:], other))
        silent = self._away or (self._back and self._then == "silence")
        return () if silent and isinstance(output, _HEARD) else (output,)

    def contributed(self, gradient_D: Tensor, view: View) -> Tensor:
        """A wrong gradient, on probation or after it."""
        on_probation = not self._away and not self._back
        wrong = (self._then == "gradient" and on_probation) or (self._then == "later" and self._back)
        return -gradient_D if self.lasting and wrong else gradient_D
