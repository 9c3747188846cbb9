"""The attempt before the present one: whether it can still be disputed, as one peer sees it.

A dispute needs all honest peers in it within D of each other, and decides for all of them, so it must not begin before
everybody can be there, nor while the one before it may still decide otherwise. Source: docs/adr/0045-disputes-start-
together.md, with the timing argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from btard.node.protocol.attempt.round import Round
from btard.node.protocol.disputes.dispute import Dispute
from btard.node.protocol.wire.messages import Signed


@dataclass(slots=True)
class Before:
    """How the attempt before the present one stands.

    Args:
        round: it; None: the greeting, or a step that this peer had no part in.
        windows: after this peer has passed on what ended it, for how many windows of 2 D a view of it lets it join its
            dispute, with a chain of that many signatures; 0: it has no dispute.
        closed: it cannot be disputed any more.
        held: the deadlines of the present attempt wait until it is closed.
    """

    round: Round | None = None
    windows: int = 0
    closed: bool = True
    held: bool = False
    dispute: Dispute | None = None
    """Its dispute: signs of one, or one that this peer has joined."""
    age_s: float = 0.0
    """How long it can have been passed on already: this peer was away."""
    window: int = 1
    """The window that runs, once what ended the attempt has been passed on."""
    passed_on: bool = False
    proof: tuple[Signed, ...] = ()
    """What closed it, for those who ask."""
    answered: set[int] = field(default_factory=set)
    """Neighbours that have been told."""

    @property
    def joined(self) -> bool:
        """This peer takes part in its dispute."""
        return self.dispute is not None and self.dispute.begun and not self.closed
