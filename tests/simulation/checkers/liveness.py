"""Liveness: every step ends within the bound that the deadlines state, each new attempt removes somebody, and every
honest peer reaches the end."""

from __future__ import annotations

from node.protocol.deadlines import deadline, dispute_round_s, outcome_s
from node.protocol.events import Committed, Finished, Halted, PhaseEntered, Voided
from node.protocol.messages import Phase
from node.simulator import Observed
from tests.simulation.stage import Stage


class Liveness:
    """Follows each honest peer from step to step."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._settings = stage.ground().settings
        self._bounds = self._phase_bounds()
        self._next = dict.fromkeys(stage.honest, 0)
        self._entered: dict[int, tuple[float, float]] = {}
        self._finished: set[int] = set()

    def _phase_bounds(self) -> dict[Phase, float]:
        """The longest that a phase may take: its deadline, and a dispute if it ends in one."""
        peers, settings = self._stage.run.peers, self._settings
        dispute_s = (peers + 1) // 2 * dispute_round_s(settings) + outcome_s(settings) + 6 * settings.delivery_bound_s
        return {phase: deadline(phase, settings, peers, 64, peers).message_s + dispute_s for phase in Phase}

    def see(self, seen: Observed) -> None:
        node = seen.node
        if node not in self._next:
            return
        match seen.output:
            case Halted() as halted:
                raise AssertionError(f"honest peer {node} halted: {halted.problem}")
            case PhaseEntered() as phase:
                self._within_bound(seen, None)
                self._entered[node] = seen.time_s, self._bounds.get(Phase[phase.phase], self._bounds[Phase.CLOSE])
            case Voided() as void:
                assert void.removals, f"attempt {void.attempt} of step {void.step} ended without a removal"
            case Committed() as done:
                self._within_bound(seen, done)
                assert done.step == self._next[node], f"peer {node} committed {done.step} after {self._next[node] - 1}"
                self._next[node] += 1
            case Finished():
                self._finished.add(node)

    def end(self) -> None:
        unfinished = set(self._next) - self._finished
        assert not unfinished, f"honest peers {sorted(unfinished)} never finished"
        assert all(step == self._stage.run.steps + 1 for step in self._next.values())

    def _within_bound(self, seen: Observed, done: Committed | None) -> None:
        began_s, bound_s = self._entered.get(seen.node, (seen.time_s, 0.0))
        assert seen.time_s - began_s <= bound_s, (
            f"a phase took {seen.time_s - began_s} s, more than {bound_s} s; {done}"
        )
