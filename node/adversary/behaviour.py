"""An attack with a memory: what one Byzantine node does beside its honest peer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.adversary.view import View
    from btard.node.protocol.api import Input, Output


class Behaviour:
    """Base of all attacks that act on a whole node: every hook leaves the peer alone.

    A subclass takes keyword parameters only; one object lives as long as its node.
    """

    label = ""
    """Prefix of this object's own timers; its adversary sets it, so that no two attacks of a node share a name."""

    lasting = False
    """Set by what cannot be undone: `said` and `aggregated` are then called at every step."""

    comes_back = False
    """True: removed as gone, the peer inside asks to be let in again (as a process does that is started again)."""

    def heard(self, event: Input, view: View) -> Sequence[Output]:
        """Called with every input, scheduled or not, after the peer has taken it.

        Returns:
            What the attacker says of its own accord, after what its peer said.
        """
        return ()

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """Called at scheduled steps with every output of the peer; returns what leaves the node instead."""
        return (output,)

    def contributed(self, gradient_D: Tensor, view: View) -> Tensor:
        """Called at scheduled steps with the node's honest gradient; returns what it commits to."""
        return gradient_D

    def aggregated(self, value_P: Tensor, view: View) -> Tensor:
        """Called at scheduled steps; returns what the node commits to as the aggregate of its part."""
        return value_P

    def rang(self, name: str, view: View) -> Sequence[Output]:
        """An own timer, `SetTimer(self.timer(name), ...)`, ran out; returns what the attacker says."""
        return ()

    def timer(self, name: str) -> str:
        """The full name of an own timer: the peer inside never hears of it."""
        return self.label + name
