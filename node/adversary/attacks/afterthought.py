"""A word about a step that is over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.attacks.equivocate import other_version
from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import chosen
from btard.node.protocol.api import PhaseEntered, Resolved, Say, SetTimer
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.wire.encoding import digest, encode_body
from btard.node.protocol.wire.messages import Close, Commit, Judge, Phase, Report, Resend, body_bytes

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output
    from btard.node.protocol.wire.messages import Body

_MARGIN_BYTES = 16
_SHARE = 0.9
"""Of the deadline, after which the COMMIT is said at the latest."""


@attack(
    "afterthought",
    acts_on="node",
    source="this project: what the certificate of a committed step forgives",
    examples=({}, {"what": "fat", "hold": False}),
    choices={"what": ("report", "fat", "close", "history", "stray", "strayed_history")},
)
class Afterthought(Behaviour):
    """Once a step is committed, its sender says something else about it, and keeps the next step waiting.

    The certificate of the step wins every dispute about it, so whoever could start one without leaving a proof would
    slow every step down; and a proof that no REPORT can carry is none.

    Args:
        what: `report`, `close`: a second message for that slot; `fat`: a second REPORT where both are as large as any
            may be; `history`: a CLOSE with another prefix; `stray`: a message of a phase that the step did not have,
            with an empty prefix; `strayed_history`: the same with a false one.
        hold: the next COMMIT waits until the dispute is over, or nearly for the others' deadline.

    Source: PROTOCOL section 9, "CLOSE to one peer only, then every kind of trigger at every instant".
    """

    def __init__(self, *, what: str = "report", hold: bool = True) -> None:
        self._what, self._hold = what, hold
        self._said: Body | None = None
        self._ready: Body | None = None
        self._held: list[Say] = []

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Remembers a step's message, says another one when the next step has begun."""
        match output:
            case Say(body=Report() as report) if self._what in ("report", "fat"):
                false = _fat(report, b"\0", view) if self._what == "fat" else report
                self._said = _fat(report, b"\1", view) if self._what == "fat" else other_version(report)
                return (Say(output.to, false),)
            case Say(body=Close() as close) if self._what not in ("report", "fat"):
                self._said = _later(close, self._what)
            case Say(body=Commit()) if self._hold and self._ready is not None:
                self._ready = None
                self._held.append(output)
                return ()
            case PhaseEntered(phase="COMMIT") if self._said is not None and self._said.slot.step < output.step:
                self._ready, self._said = self._said, None
                return (output, Say(chosen(view, "all"), self._ready))
            case SetTimer(name=deadlines.MESSAGES, after_s=after_s) if self._hold and self._ready is not None:
                return (output, SetTimer(self.timer("commit"), _SHARE * after_s))
            case Resolved():
                held, self._held = self._held, []
                return (output, *held)
        return (output,)

    def rang(self, name: str, view: View) -> Sequence[Output]:
        """Says the COMMIT before it is missed."""
        self._ready, held, self._held = None, self._held, []
        return held


def _fat(report: Report, filler: bytes, view: View) -> Report:
    """A REPORT as large as one may be, full of evidence that proves nothing."""
    peers = len(view.attempt.roster.keys) if view.attempt is not None else len(view.active)
    room = body_bytes(Phase.REPORT, peers) - len(encode_body(report)) - _MARGIN_BYTES
    return replace(report, evidence=(filler * room,))


def _later(close: Close, what: str) -> Body | None:
    false = tuple(digest("afterthought", entry) for entry in close.prefix)
    match what:
        case "close":
            return other_version(close)
        case "history":
            return replace(close, prefix=false)
        case "stray":
            return Resend(replace(close.slot, phase=Phase.RESEND), ())
        case _:
            return Judge(replace(close.slot, phase=Phase.JUDGE), false, ())
