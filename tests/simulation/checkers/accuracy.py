"""Accuracy: no honest peer suspects another, and none is banned or removed but as one side of a mutual elimination, at
most one for each Byzantine peer removed; and no Byzantine one is banned for what it did not do."""

from __future__ import annotations

from collections import Counter

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Expelled, Suspected, Voided
from tests.simulation.stage import Stage

_IN_STEP = frozenset({"aggregate", "unusable", "bounds", "close"})
"""Reasons that concern the very step of the ban."""


class Accuracy:
    """Every ban names a Byzantine peer and a step at which it attacked, or breaks a pair that holds one."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._eliminated: dict[int, Counter[bool]] = {node: Counter() for node in stage.honest}
        """By reporter: eliminated peers that are honest, and not."""

    def see(self, seen: Observed) -> None:
        if seen.node not in self._eliminated:
            return
        eliminated = self._eliminated[seen.node]
        match seen.output:
            case Expelled() as expelled:
                assert expelled.reason == "eliminated", f"honest peer {seen.node} was expelled: {expelled}"
            case Banned() as ban:
                honest = ban.peer in self._stage.honest
                if ban.reason == "eliminated":
                    eliminated[honest] += 1
                else:
                    assert not honest, f"honest peer {ban.peer} was banned at step {ban.step}: {ban.reason}"
                if not honest:
                    self._had_it_coming(ban)
            case Suspected(peer=peer):
                assert peer not in self._stage.honest, (
                    f"peer {seen.node} suspects the honest peer {peer}: {seen.output}"
                )
            case Voided() | Committed():
                lost = f"{eliminated[True]} honest peers were eliminated with {eliminated[False]} Byzantine ones"
                assert eliminated[True] <= eliminated[False], lost

    def end(self) -> None:
        pass

    def _had_it_coming(self, ban: Banned) -> None:
        attacked = self._stage.adversary(ban.peer).attacked
        if ban.reason == "gradient":
            deserved = ban.step - 1 in attacked
        elif ban.reason in _IN_STEP:
            deserved = ban.step in attacked
        else:
            # A crashed node stays silent, a pair breaks at its fourth complaint, proofs of equivocation never expire.
            deserved = any(step <= ban.step for step in attacked)
        assert deserved, f"peer {ban.peer} was banned for {ban.reason} at step {ban.step}, but attacked at {attacked}"
