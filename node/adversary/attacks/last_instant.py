"""A message just in time, for a chosen few."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.protocol.api import Forward, PhaseEntered, Say, SetTimer
from btard.node.protocol.attempt import deadlines
from btard.node.protocol.disputes.dolev_strong import round_timer
from btard.node.protocol.wire.messages import Phase

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_PHASES = tuple(phase.name for phase in Phase if phase not in (Phase.HELLO, Phase.SUSPECT, Phase.JOIN))


@attack(
    "last_instant",
    acts_on="node",
    source="PROTOCOL section 4 (deadlines from phase entry)",
    examples=({}, {"phase": "VIEW", "to": "half"}),
    choices={"phase": _PHASES, "to": TARGETS, "others": ("never", "late")},
)
class LastInstant(Behaviour):
    """A phase's message is held back until just before the receivers' deadline, and then goes to a chosen few.

    The attacker knows the deadline: its own peer sets the same one when it enters the phase.

    Args:
        phase: of the message; VIEW is timed by the dispute's first round.
        to: who gets it.
        before_s: seconds before the deadline (a message in flight takes some of them).
        others: `never`: the rest gets nothing; `late`: it gets it twice `before_s` after.
        apart: attackers choose different peers.

    Source: PROTOCOL section 9, "a message at the last instant to a chosen peer: SUSPECT, forward"; "views at the last
    instant of each round: equal unions".
    """

    def __init__(
        self,
        *,
        phase: str = "COMMIT",
        to: str = "one",
        before_s: float = 0.05,
        others: str = "never",
        apart: bool = False,
    ) -> None:
        self._phase, self._to, self._before_s, self._others, self._apart = phase, to, before_s, others, apart
        self._entered = ""
        self._due = False
        self._held: Say | None = None

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Times the phase, and holds its message."""
        match output:
            case PhaseEntered(phase=phase):
                self._entered = phase
                # Its own peer, which heard the CLOSE, may be in the next step when the instant comes.
                if phase == self._phase or self._phase in ("VIEW", "OUTCOME"):
                    self._due, self._held = False, None
            case SetTimer(name=name, after_s=after_s) if self._times(name, view):
                return (output, SetTimer(self.timer("release"), max(after_s - self._before_s, 0.0)))
            case Say(body=body) if body.slot.phase.name == self._phase:
                self._held = output
                now = self._release(view) if self._due else ()
                return (*told_apart(output, None, chosen(view, "all")), *now)
            case Forward():
                return ()
        return (output,)

    def rang(self, name: str, view: View) -> Sequence[Output]:
        """The instant has come."""
        self._due = True
        if name == "rest" and self._held is not None:
            held, self._held = self._held, None
            return _only(
                held, tuple(peer for peer in chosen(view, "all") if peer not in chosen(view, self._to, self._apart))
            )
        return self._release(view)

    def _times(self, name: str, view: View) -> bool:
        if self._phase in ("VIEW", "OUTCOME"):
            attempt = view.attempt
            return attempt is not None and name == round_timer(attempt.step, attempt.number)
        return name == deadlines.MESSAGES and self._entered == self._phase

    def _release(self, view: View) -> Sequence[Output]:
        if self._held is None:
            return ()
        sent = _only(self._held, chosen(view, self._to, self._apart))
        if self._others == "never":
            self._held = None
            return sent
        return (*sent, SetTimer(self.timer("rest"), 2.0 * self._before_s))


def _only(say: Say, peers: Sequence[int]) -> Sequence[Output]:
    to = tuple(peer for peer in say.to if peer in peers)
    return (Say(to, say.body),) if to else ()
