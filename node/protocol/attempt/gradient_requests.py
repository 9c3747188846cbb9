"""The gradients a peer has asked for: its own of the current step, others' of the step before, in an undo step others'
of earlier ones."""

from __future__ import annotations

from torch import Tensor

from btard.node.protocol.adjudication.judging import Fault, gradient_fault
from btard.node.protocol.api import ComputeGradient, GradientReady, Purpose
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import Contribution


class Rechecks:
    """The contributions that a peer recomputes in an undo step, kept from attempt to attempt.

    They are asked for one by one: what a void attempt wanted of this peer is not in the way of what the next one wants.
    """

    def __init__(self) -> None:
        self.faults: dict[Contribution, Fault | None] = {}
        self._waiting: dict[Contribution, Attempt] = {}
        self._asked: tuple[Contribution, Attempt] | None = None

    def forget(self) -> None:
        """An attempt begins: nothing is wanted but what it will want."""
        self._waiting = {}

    def want(self, attempt: Attempt, item: Contribution) -> list[ComputeGradient]:
        """A contribution's gradient is to be asked for; what to ask for now."""
        self._waiting.setdefault(item, attempt)
        return self.next()

    def next(self) -> list[ComputeGradient]:
        """What to ask for, once there is nothing else under way."""
        while self._asked is None and self._waiting:
            item = next(iter(self._waiting))
            attempt = self._waiting.pop(item)
            if item not in self.faults:
                past = attempt.earlier(item)
                self._asked = item, past
                before_D = past.state.parameters_D
                return [ComputeGradient(Purpose.UNDO, item.step, item.owner, before_D, past.seed(item.owner))]
        return []

    def take(self, ready: GradientReady) -> bool:
        """Compare an answer with what was committed to; false if nobody asked for it."""
        if self._asked is None:
            return False
        item, past = self._asked
        if (item.step, item.owner) != (ready.step, ready.peer):
            return False
        self._asked = None
        self.faults[item] = gradient_fault(past, item.owner, ready.gradient_D)
        return True


class Gradients:
    """Asks for each gradient once, and remembers the answers until the step is committed.

    A new attempt at a step reuses its gradients: xi does not depend on the attempt.
    """

    def __init__(self) -> None:
        self.own_D: Tensor | None = None
        self.recomputed: dict[int, Tensor] = {}
        self.rechecks = Rechecks()
        self._asked: set[tuple[Purpose, int]] = set()

    def want_own(self, attempt: Attempt) -> list[ComputeGradient]:
        """Ask for our own gradient of this step, unless it was asked for."""
        return self._want(Purpose.OWN, attempt, attempt.me)

    def want_past(self, purpose: Purpose, past: Attempt, peer: int) -> list[ComputeGradient]:
        """Ask for a peer's gradient of the step before, unless it was asked for (for whatever purpose)."""
        if any((known, peer) in self._asked for known in (Purpose.VALIDATE, Purpose.JUDGE)):
            return []
        return self._want(purpose, past, peer)

    def take(self, ready: GradientReady) -> bool:
        """Keep an answer; false if nobody asked for it."""
        if ready.purpose is Purpose.UNDO:
            return self.rechecks.take(ready)
        if (ready.purpose, ready.peer) not in self._asked:
            return False
        if ready.purpose is Purpose.OWN:
            self.own_D = ready.gradient_D
        else:
            self.recomputed[ready.peer] = ready.gradient_D
        return True

    def _want(self, purpose: Purpose, attempt: Attempt, peer: int) -> list[ComputeGradient]:
        if (purpose, peer) in self._asked:
            return []
        self._asked.add((purpose, peer))
        return [ComputeGradient(purpose, attempt.step, peer, attempt.state.parameters_D, attempt.seed(peer))]
