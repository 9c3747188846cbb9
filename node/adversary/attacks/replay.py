"""Old and foreign messages."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import chosen, shuffled
from btard.node.protocol.api import Forward, MessageArrived, PhaseEntered, Say, SendBulk
from btard.node.protocol.wire.encoding import digest

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Input, Output
    from btard.node.protocol.wire.messages import Body, Signed, Slot

_REMEMBERED = 128
_AT_ONCE = 16


@attack(
    "replay",
    acts_on="node",
    source="PROTOCOL section 2 (slots)",
    examples=({}, {"what": "run"}),
    choices={"what": ("own", "others", "bulk", "run", "roster", "step", "attempt", "spoof")},
)
class Replay(Behaviour):
    """Messages come again, or come from elsewhere, beside the true ones.

    Args:
        what: `own`, `others`: signed messages of earlier steps, the attacker's or everybody's; `bulk`: its tensors of
            earlier steps; `run`, `roster`, `step`, `attempt`: its message of this slot, signed for one that differs in
            that; `spoof`: tensors in an honest peer's name.

    Source: PROTOCOL section 9, "messages replayed from another step, attempt, run or roster: dropped by slot, counted".
    """

    def __init__(self, *, what: str = "own") -> None:
        self._what = what
        self._messages: deque[tuple[int, Signed]] = deque(maxlen=_REMEMBERED)
        self._tensors: deque[SendBulk] = deque(maxlen=_REMEMBERED)

    def heard(self, event: Input, view: View) -> Sequence[Output]:
        """Remembers what can be sent again."""
        if isinstance(event, MessageArrived):
            ours = event.via is None or event.via == view.me
            if self._what == "others" or (self._what == "own" and ours):
                self._messages.append((view.step, event.signed))
        return ()

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Adds to what the peer says."""
        match output:
            case PhaseEntered():
                return (output, *self._again(view))
            case SendBulk() if output.to != view.me:
                self._tensors.append(output)
                victims = [peer for peer in shuffled(view, "spoof") if peer != output.to]
                if self._what == "spoof" and victims:
                    stolen = replace(output.key, owner=victims[0])
                    return (output, SendBulk(output.to, stolen, output.values_P + 1.0))
            case Say(body=body):
                elsewhere = _elsewhere(body, self._what)
                honest = chosen(view, "all")
                if elsewhere is not None and honest:
                    return (output, Say(honest, elsewhere))
        return (output,)

    def _again(self, view: View) -> list[Output]:
        honest = chosen(view, "all")
        if not honest:
            return []
        old = [signed for step, signed in self._messages if step < view.step]
        again: list[Output] = [Forward(honest, tuple(old[-_AT_ONCE:]))] if old else []
        if self._what == "bulk":
            again += [sent for sent in self._tensors if sent.key.step < view.step][-_AT_ONCE:]
        return again


def _elsewhere(body: Body, what: str) -> Body | None:
    slot: Slot = body.slot
    match what:
        case "run":
            return replace(body, slot=replace(slot, run=digest("another run", slot.run)))
        case "roster":
            return replace(body, slot=replace(slot, roster=digest("another roster", slot.roster)))
        case "step":
            return replace(body, slot=replace(slot, step=slot.step + 7))
        case "attempt":
            return replace(body, slot=replace(slot, attempt=slot.attempt + 7))
    return None
