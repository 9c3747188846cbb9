"""Accuracy: no honest peer is banned or removed, and no Byzantine one for what it did not do."""

from __future__ import annotations

from node.protocol.events import Banned, Expelled, Voided
from node.simulator import Observed
from tests.simulation.stage import Stage

_PAST = frozenset({"gradient"})
"""Reasons that concern the step before the verdict."""


class Accuracy:
    """Every ban names a Byzantine peer and a step at which it attacked."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def see(self, seen: Observed) -> None:
        honest = self._stage.honest
        match seen.output:
            case Expelled() if seen.node in honest:
                raise AssertionError(f"honest peer {seen.node} was expelled: {seen.output}")
            case Banned() as ban if seen.node in honest:
                assert ban.peer not in honest, f"honest peer {ban.peer} was banned at step {ban.step}: {ban.reason}"
                self._had_it_coming(ban)
            case Voided() as void if seen.node in honest:
                assert not set(void.removals) & set(honest), f"honest peers removed: {void}"

    def end(self) -> None:
        pass

    def _had_it_coming(self, ban: Banned) -> None:
        attacked = self._stage.adversary(ban.peer).attacked
        steps = {ban.step - 1} if ban.reason in _PAST else {ban.step}
        assert steps & set(attacked), f"peer {ban.peer} was banned for {ban.reason} at step {ban.step}, not attacking"
