"""The timers of one attempt: laggards, the wait for bulk, the wait for messages, and the end of all patience."""

from __future__ import annotations

from dataclasses import replace

from btard.node.protocol.api import CancelTimer, Output, SetTimer
from btard.node.protocol.attempt.deadlines import Deadline, Work, budget, deadline, laggards_s, outcome_s
from btard.node.protocol.settings import Settings

LAGGARDS, BULK, MESSAGES, STALL = "laggards", "bulk", "messages", "stall"
OF_AN_ATTEMPT = (LAGGARDS, BULK, MESSAGES, STALL)
HELLO, FORWARD, BEFORE = "hello", "forward", "before"
"""The wait for greetings; what ended the attempt before goes to all; a window in which its dispute can be joined is
over."""


class Timers:
    """Sets the timers of a phase; nothing here reads a clock.

    Args:
        settings: the bounds.
        active: size of the roster.
        out: where outputs are appended.
        patience_s: how long others may be in coming to this attempt, beyond what its first deadline allows for.
    """

    def __init__(self, settings: Settings, active: int, out: list[Output], patience_s: float = 0.0) -> None:
        self._settings, self._active, self._out = settings, active, out
        self._work, self._tensors, self._recomputed, self._patience_s = Work(), 0, 0, patience_s
        self.budget = self._longer(budget(self._work, settings, active, 0, 0))
        """What the phase's waits may take before anybody is called late."""

    def enter(self, work: Work, publications: int, recomputed: int) -> None:
        """A phase begins.

        Args:
            work: what its message may wait for.
            publications: parts published for judging, each to every peer.
            recomputed: gradients that every peer recomputes for judging, or at most for its REPORT in an undo step;
                whoever is at one says nothing meanwhile.
        """
        self._work, self._recomputed = work, recomputed
        self._tensors = publications if work.published else work.tensors
        self.budget = self._longer(budget(work, self._settings, self._active, self._tensors, recomputed))
        self.restart()

    def restart(self) -> None:
        """The phase's waits begin now."""
        waits = self._deadline()
        self._out += [CancelTimer(BULK), CancelTimer(STALL)]
        if not self._work.first:
            self._out.append(SetTimer(LAGGARDS, laggards_s(self._settings)))
        if waits.bulk_s > 0:
            self._out.append(SetTimer(BULK, waits.bulk_s))
        self._out.append(SetTimer(MESSAGES, waits.message_s))

    def stall(self) -> None:
        """We have suspected somebody: unless a message or a dispute follows, there is no quorum."""
        self._out.append(SetTimer(STALL, self._deadline().message_s + outcome_s(self._settings)))

    def _deadline(self) -> Deadline:
        return self._longer(deadline(self._work, self._settings, self._active, self._tensors, self._recomputed))

    def _longer(self, waits: Deadline) -> Deadline:
        """With the time that others may need to come to this attempt, before their first COMMIT."""
        if not self._work.first or self._patience_s == 0.0:
            return waits
        return replace(waits, message_s=waits.message_s + self._patience_s)
