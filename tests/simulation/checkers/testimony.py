"""What honest peers say of a run: who is out, and each committed step by the word of the first that commits it."""

from __future__ import annotations

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Returned
from tests.simulation.oracle import Account, World, genesis_r
from tests.simulation.stage import Stage

ACROSS_PLATFORMS = 1e-9
"""Relative difference of honest float64 sums between machines (PROTOCOL section 8)."""


def world_of(stage: Stage) -> World:
    """A run as the oracle knows it."""
    run = stage.run
    tolerance = ACROSS_PLATFORMS if run.recompute_tolerance else 0.0
    return World(
        stage.task.dimension,
        run.peers,
        run.tau,
        run.data_seed,
        run.rule.name,
        bool(run.pre),
        tolerance,
        run.wire == "bf16",
    )


class Bans:
    """Who is out, and since which step."""

    def __init__(self) -> None:
        self.since: dict[int, int] = {}

    def see(self, seen: Observed) -> None:
        """What an honest peer reports."""
        match seen.output:
            case Banned() as ban:
                self.since.setdefault(ban.peer, ban.step)
            case Returned(peer=peer, step=step) if self.since.get(peer, step) <= step:  # its own word may come later
                self.since.pop(peer, None)

    def out(self, peer: int, step: int) -> bool:
        """True if a peer was banned by the end of a step."""
        return self.since.get(peer, step + 1) <= step


class Commits:
    """The committed steps. The first honest peer that commits stands for all: Agreement compares them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._world = world_of(stage)
        self._r = genesis_r(stage.run.data_seed)
        self._steps: set[int] = set()

    def fresh(self, seen: Observed) -> tuple[Committed, Account] | None:
        """The step that an honest peer reports and the messages it holds of it; None if there is none, or it is
        known."""
        done = seen.output
        if not isinstance(done, Committed) or done.step in self._steps:
            return None
        self._steps.add(done.step)
        peer = self._stage.simulation.nodes[seen.node].peer
        attempt = peer.past
        assert attempt is not None, f"peer {seen.node} committed step {done.step} and holds nothing of it"
        held = attempt.step, attempt.number
        assert held == (done.step, done.attempt), f"peer {seen.node} committed {done.step} and holds {held}"
        aggregates = {owner: value_P.numpy() for owner, value_P in attempt.aggregates.items()}
        account = Account(self._world, done.step, done.attempt, done.active, self._r, aggregates)
        account.take(signed.body for signed in attempt.transcript.everything())
        self._r = account.r
        return done, account
