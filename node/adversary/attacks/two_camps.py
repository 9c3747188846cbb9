"""Two disputes at a time, one for each half of the honest peers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.attacks.equivocate import other_version
from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.errors import WireError
from btard.node.protocol.api import Endorse, Forward, MessageArrived, PhaseEntered, Say, SetTimer, ViewArrived
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Close, Commit, Outcome, Phase, Removal, Suspect, View

if TYPE_CHECKING:
    from btard.node.adversary.view import View as Knowledge
    from btard.node.protocol.api import Input, Output


@attack(
    "two_camps",
    acts_on="node",
    source="this project: disputes of two steps that overlap",
    examples=({}, {"to": "one"}),
    choices={"to": TARGETS},
)
class TwoCamps(Behaviour):
    """The honest peers are divided: some commit the step, the others dispute it, and each camp is given a dispute.

    The first attacker hands its CLOSE to one camp just before the others' deadline, and its accomplice shows the others
    a second one. When these dispute the step, each camp gets a reason to dispute the next one: a malformed COMMIT, and
    two of one sender. The attackers pass nothing on; they show each camp empty views, and sign whatever OUTCOME a peer
    signs, for that peer's camp alone; the other has an OUTCOME of theirs already. With f of them each camp would have
    its majority.

    Args:
        to: the camp that commits.
        before_s: seconds before the others' deadline.
        gap_s: from that deadline to the reasons to dispute the next step.
        late_s: how long after the second CLOSE the first attacker hands over its own.

    Source: this project, docs/adr/0045-disputes-start-together.md.
    """

    def __init__(self, *, to: str = "two", before_s: float = 0.05, gap_s: float = 0.3, late_s: float = 0.0) -> None:
        self._to, self._before_s, self._gap_s, self._late_s = to, before_s, gap_s, late_s
        self._step = -1
        self._close: Say | None = None
        self._commit: Say | None = None
        self._camp: tuple[int, ...] = ()
        self._rest: tuple[int, ...] = ()
        self._echoed: set[bytes] = set()

    def said(self, output: Output, view: Knowledge) -> Sequence[Output]:
        """Holds back what the plan needs later, and everything that would tell one camp of the other."""
        match output:
            case PhaseEntered(step=step, phase="CLOSE") if not self.lasting:
                self._step, self._camp = step, chosen(view, self._to)
                self._rest = tuple(peer for peer in chosen(view, "all") if peer not in self._camp)
            case PhaseEntered(step=step) if step > self._step + 1:
                self.lasting = False
            case SetTimer(name=deadlines.MESSAGES, after_s=after_s) if self._step == view.step and not self.lasting:
                self.lasting = True
                now_s = after_s - self._before_s + (self._late_s if self._leads(view) else 0.0)
                return (output, SetTimer(self.timer("now"), max(now_s, 0.0)))
            case Say(body=Close() as close) if close.slot.step == self._step:
                self._close = output
                return told_apart(output, None, chosen(view, "all")) if self._leads(view) else (output,)
            case Say(body=Commit() as commit) if self.lasting and commit.slot.step == self._step + 1:
                self._commit = output
                return told_apart(output, None, (*self._camp, *self._rest))
            case Say(body=Suspect() | View() | Outcome()) | Forward() | Endorse() if self.lasting:
                return ()
        return (output,)

    def rang(self, name: str, view: Knowledge) -> Sequence[Output]:
        """The other camp's deadline is near, or over."""
        if self._close is None or not self._rest:
            return ()
        if name == "now":
            told = (
                (self._camp, self._close.body) if self._leads(view) else (self._rest, other_version(self._close.body))
            )
            then = SetTimer(self.timer("then"), self._before_s + self._gap_s)
            return (Say(told[0], told[1]), then) if told[1] is not None else (then,)
        commit = self._commit.body if self._commit is not None else None
        if not isinstance(commit, Commit):
            return ()
        if self._leads(view):
            return (
                Say(self._camp, replace(commit, parts=(*commit.parts, commit.randomness))),
                self._foretold(commit, view),
            )
        second = other_version(commit)
        return (*(Say(self._rest, each) for each in (commit, second) if each is not None), self._foretold(commit, view))

    def _foretold(self, commit: Commit, view: Knowledge) -> Say:
        """What the others will decide: two COMMITs are an equivocation. The first OUTCOME of each peer counts."""
        guilty = Removal(max(view.accomplices), "equivocation", None)
        return Say(self._rest, Outcome(replace(commit.slot, phase=Phase.OUTCOME), (), None, (guilty,)))

    def heard(self, event: Input, view: Knowledge) -> Sequence[Output]:
        """Answers an honest peer's view with an empty one, and signs its OUTCOME too, for its camp."""
        match event:
            case MessageArrived(signed=signed):
                pass
            case ViewArrived(endorsed=endorsed):
                signed = endorsed.view
            case _:
                return ()
        if not self.lasting or signed.body in self._echoed:
            return ()
        try:
            body = decode_body(signed.body)
        except WireError:
            return ()
        camp = next((camp for camp in (self._camp, self._rest) if body.slot.sender in camp), ())
        if not camp or not isinstance(body, Outcome | View):
            return ()
        self._echoed.add(signed.body)
        slot = replace(body.slot, sender=view.me)
        return (Say(camp, View(slot, (), ()) if isinstance(body, View) else replace(body, slot=slot)),)

    def _leads(self, view: Knowledge) -> bool:
        return view.me == min(view.accomplices)
