"""Everything at the last moment at which nobody minds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from msgspec import structs

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.protocol.api import BulkKind, PhaseEntered, Say, SendBulk, SetTimer
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.attempt.deadlines import Deadline, budget
from btard.node.protocol.attempt.phases import PHASES
from btard.node.protocol.wire.messages import Phase, Report

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_STEP = range(Phase.COMMIT.value, Phase.CLOSE.value + 1)
_OWED = (BulkKind.PART, BulkKind.AGGREGATE)


@attack(
    "just_in_time",
    acts_on="node",
    source="PROTOCOL section 10, rule 5 (lateness is not free)",
    examples=({}, {"until": "budget", "tensors": True}),
    choices={"until": ("deadline", "budget")},
)
class JustInTime(Behaviour):
    """Every message of every phase is held back until just before the receivers would mind.

    The attacker knows the instant: its own peer waits for the others' messages as long.

    Args:
        until: `deadline`: before they suspect it; `budget`: before they call it late.
        tensors: parts and aggregates too.
        before_s: seconds before that instant (a message in flight takes some of them).

    Source: PROTOCOL section 10, rule 5.
    """

    def __init__(self, *, until: str = "deadline", tensors: bool = False, before_s: float = 0.05) -> None:
        self._mindful, self._tensors, self._before_s = until == "budget", tensors, before_s
        self._wait_s, self._phase = 0.0, Phase.COMMIT
        self._bulky = self._due = self._bulk_due = False
        self._message: Say | None = None
        self._owed: list[Output] = []
        self._next: list[Output] = []

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Times the waits of the phase, and holds what the others wait for."""
        match output:
            case PhaseEntered(phase=phase):
                self._phase = Phase[phase]
                self._due = self._bulk_due = self._bulky = False
                # Tensors are sent on leaving the phase before the one in which they are awaited.
                left, self._owed, self._next = self._owed, self._next, []
                return (output, *left)
            case SetTimer(name=deadlines.BULK, after_s=after_s):
                self._bulky = True
                return (output, *self._ring("owed", self._budget(view).bulk_s if self._mindful else after_s))
            case SetTimer(name=deadlines.MESSAGES, after_s=after_s):
                self._wait_s = self._budget(view).message_s if self._mindful else after_s
                return (output,) if self._mindful else (output, *self._ring("message", self._wait_s))
            case Say(body=Report() as body) if body.late:
                # Nobody is called late by the one who is.
                return self.said(replace(output, body=structs.replace(body, late=())), view)
            case Say(body=body) if body.slot.phase.value in _STEP and not self._due:
                self._message = output
                return self._ring("message", self._wait_s) if self._mindful else ()
            case SendBulk(to=to, key=key) if self._tensors and key.kind in _OWED and key.owner == view.me != to:
                if not self._bulk_due:
                    self._next.append(output)
                    return ()
        return (output,)

    def rang(self, name: str, view: View) -> Sequence[Output]:
        """The instant has come."""
        if name == "owed":
            self._bulk_due = True
            owed, self._owed = self._owed, []
            return owed
        self._due = True
        message, self._message = self._message, None
        return (message,) if message is not None else ()

    def _ring(self, name: str, wait_s: float) -> Sequence[Output]:
        return (SetTimer(self.timer(name), max(wait_s - self._before_s, 0.0)),)

    def _budget(self, view: View) -> Deadline:
        """What the others may wait for us in this phase, as long as nobody has to publish anything."""
        attempt = view.attempt
        if attempt is None:
            return Deadline(0.0, 0.0)
        return budget(PHASES[self._phase].work, attempt.settings, len(attempt.roster.active), int(self._bulky), 0)
