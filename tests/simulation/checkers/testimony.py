"""What honest peers say of a run: who is out, and each committed step by the word of the first that commits it."""

from __future__ import annotations

from node.protocol.attempt import Attempt
from node.protocol.notices import Banned, Committed, Returned
from node.simulator import Observed
from tests.simulation.stage import Stage


class Bans:
    """Who is out, and since which step."""

    def __init__(self) -> None:
        self.since: dict[int, int] = {}

    def see(self, seen: Observed) -> None:
        """What an honest peer reports."""
        match seen.output:
            case Banned() as ban:
                self.since.setdefault(ban.peer, ban.step)
            case Returned(peer=peer):
                self.since.pop(peer, None)

    def out(self, peer: int, step: int) -> bool:
        """True if a peer was banned by the end of a step."""
        return self.since.get(peer, step + 1) <= step


class Commits:
    """The committed steps. The first honest peer that commits stands for all: Agreement compares them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._steps: set[int] = set()

    def fresh(self, seen: Observed) -> tuple[Committed, Attempt] | None:
        """The step that an honest peer reports and the attempt it committed; None if there is none, or it is known."""
        done = seen.output
        if not isinstance(done, Committed) or done.step in self._steps:
            return None
        self._steps.add(done.step)
        attempt = self._stage.simulation.nodes[seen.node].peer.past
        assert attempt is not None
        return done, attempt
