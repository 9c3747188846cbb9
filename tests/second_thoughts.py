"""Attacks for tests, loaded as a user's own file: what a peer that was started again must not have forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.attacks.equivocate import other_version
from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.errors import WireError
from btard.node.protocol.api import (
    BulkKind,
    Endorse,
    Forward,
    MessageArrived,
    PhaseEntered,
    RequestTranscript,
    Say,
    SendBulk,
    SetTimer,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Body, Close, Commit, Outcome, Phase, Signed, Suspect, View

if TYPE_CHECKING:
    from btard.node.adversary.view import View as Knowledge
    from btard.node.protocol.api import Input, Output


@attack(
    "second_thoughts",
    acts_on="node",
    source="this project: what a restart has to keep",
    choices={"to": TARGETS},
)
class SecondThoughts(Behaviour):
    """Few get the last CLOSE of a step, just before the others' deadline; in the dispute there is a second COMMIT.

    The first attacker holds its CLOSE back and shows its accomplices a second COMMIT. The last one (itself, if it is
    alone) answers the first view that it sees with both, so that the step is void unless somebody shows its
    certificate, and signs the OUTCOME that honest peers sign. They pass nothing on.

    Args:
        to: who gets the CLOSE.
        before_s: seconds before the others' deadline.

    Source: this project, docs/adr/0045-disputes-start-together.md.
    """

    def __init__(self, *, to: str = "@0", before_s: float = 0.3) -> None:
        self._to, self._before_s = to, before_s
        self._step = -1
        self._close: Say | None = None
        self._commits: list[Signed] = []
        self._answered: set[Phase] = set()

    def said(self, output: Output, view: Knowledge) -> Sequence[Output]:
        """Holds back the CLOSE, and all that would tell the others of it."""
        match output:
            case PhaseEntered(step=step, phase="COMMIT") if not self.lasting:
                self._step, self._commits = step, []
            case PhaseEntered(step=step) if step > self._step + 1:
                self.lasting = False
            case PhaseEntered(phase="CLOSE") if not self.lasting:
                self.lasting = True
            case SetTimer(name=deadlines.MESSAGES, after_s=after_s) if self.lasting and self._leads(view):
                if self._close is None:
                    return (output, SetTimer(self.timer("now"), max(after_s - self._before_s, 0.0)))
            case Say(body=Close() as close) if self._concerns(close) and self._leads(view):
                self._close = output
                return told_apart(output, None, chosen(view, "all"))
            case Say(body=Suspect() | View() | Outcome()) | Forward() | Endorse() if self.lasting:
                return ()
        return (output,)

    def rang(self, name: str, view: Knowledge) -> Sequence[Output]:
        """The others' deadline is near: the CLOSE for few, a second COMMIT for accomplices."""
        if self._close is None or not self._commits:
            return ()
        second = other_version(decode_body(self._commits[0].body))
        told: list[Output] = [Say(chosen(view, self._to), self._close.body)]
        return told if second is None else [*told, Say(view.accomplices, second)]

    def heard(self, event: Input, view: Knowledge) -> Sequence[Output]:
        """Keeps the COMMITs of the first attacker; answers the first view and the first OUTCOME of its step."""
        match event:
            case MessageArrived(signed=signed):
                pass
            case ViewArrived(endorsed=endorsed):
                signed = endorsed.view
            case _:
                return ()
        try:
            body = decode_body(signed.body)
        except WireError:
            return ()
        if not self._concerns(body):
            return ()
        if isinstance(body, Commit) and body.slot.sender == min(view.accomplices) and signed not in self._commits:
            self._commits.append(signed)
        if view.me != max(view.accomplices) or body.slot.sender in view.accomplices:
            return ()
        if not isinstance(body, View | Outcome) or body.slot.phase in self._answered:
            return ()
        self._answered.add(body.slot.phase)
        honest, slot = chosen(view, "all"), replace(body.slot, sender=view.me)
        if isinstance(body, View):
            return (Say(honest, View(slot, (), tuple(self._commits))),)
        return (Say(honest, replace(body, slot=slot)),)

    def _concerns(self, body: Body) -> bool:
        return (body.slot.step, body.slot.attempt) == (self._step, 0)

    def _leads(self, view: Knowledge) -> bool:
        return view.me == min(view.accomplices)


@attack("also_started_again", acts_on="node", source="this project: what a neighbour that was started again believes")
class AlsoStartedAgain(Behaviour):
    """Keeps its parts from peer 0, and tells it, once that has been started again, that so has it been itself.

    Source: this project, docs/security/tests.md.
    """

    def __init__(self) -> None:
        self._place: tuple[int, int] | None = None

    def said(self, output: Output, view: Knowledge) -> Sequence[Output]:
        """Keeps the parts back, and notes the attempt."""
        match output:
            case SendBulk(to=0, key=key) if key.kind is BulkKind.PART:
                return ()
            case PhaseEntered(step=step, attempt=attempt, phase="AGG"):
                self._place, self.lasting = (step, attempt), True
        return (output,)

    def heard(self, event: Input, view: Knowledge) -> Sequence[Output]:
        """Answers the first question of peer 0 with its own."""
        if self._place is None or not isinstance(event, TranscriptRequested) or event.via != 0:
            return ()
        place, self._place = self._place, None
        return (RequestTranscript((0,), *place),)
