"""Liveness: every step ends within the bound that the deadlines state, each new attempt removes a faulty peer, a
dispute ends within its rounds plus a fifth, and every honest peer reaches the end."""

from __future__ import annotations

from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import (
    Committed,
    Disputed,
    Expelled,
    Finished,
    Halted,
    PhaseEntered,
    Resolved,
    Undone,
    Voided,
)
from btard.node.protocol.wire.messages import Phase, Report
from tests.simulation.stage import Stage

MARGIN = 1.2
"""What a dispute may take, in units of its bound."""


def dispute_bound_s(stage: Stage, active: int, waits: bool = False) -> float:
    """f + 1 rounds of 2 D, for starts D apart, and D for the OUTCOMEs.

    Args:
        stage: of the run.
        active: peers in the attempt.
        waits: the attempt before may be disputed first: it can be joined for as many windows, and takes as long.
    """
    faults, delivery_s = (active + 1) // 2 - 1, stage.run.delivery_bound_s
    rounds_s = (faults + 1) * 2.0 * delivery_s + 2.0 * delivery_s
    return 3.0 * rounds_s if waits else rounds_s


def judged(stage: Stage, node: int, step: int, attempt: int) -> int:
    """How many gradients the REPORTs that a peer holds of an attempt can have everybody recompute, at most."""
    peer = stage.simulation.nodes[node].peer
    rounds = [each for each in (peer.attempt, peer.past) if each is not None]
    held = [each.transcript.of(Report, Phase.REPORT) for each in rounds if (each.step, each.number) == (step, attempt)]
    return sum(
        sum(not verdict.correct for verdict in report.verdicts) + report.holds.count(False) + len(report.joins)
        for reports in held[:1]
        for report in reports.values()
    )


def settling_s(stage: Stage, active: int, recomputed: int) -> float:
    """How long deadlines of the next attempt wait after an OUTCOME that removes somebody and lets a value stand: some
    may have to fetch the bytes of that value first, and to judge (docs/spec/disputes.md, "Closed to m").

    Args:
        stage: of the run.
        active: peers in the attempt that was disputed.
        recomputed: gradients that judging it takes, at most.
    """
    run = stage.run
    vectors_s = (1 + active) * run.entry_bytes * stage.task.dimension * active / run.minimum_rate
    return 6.0 * run.delivery_bound_s + (1 + max(1, recomputed)) * run.gradient_bound_s + vectors_s


def awaits_another(stage: Stage, node: int) -> bool:
    """True while a peer is frozen and its rounds have not begun: the attempt before may still be disputed."""
    dispute = stage.simulation.nodes[node].peer.shared.dispute
    return dispute is not None and dispute.frozen and not dispute.begun


def phase_bound_s(stage: Stage, node: int, phase: str) -> float:
    """From a peer's entry into a phase until it suspects whoever is silent, by the law that docs/faults.md states.

    Honest peers enter a phase at most 2 D and what keeps one busy apart; bulk moves at the minimum rate and everyone
    may pull from everyone.
    """
    run, round_ = stage.run, stage.simulation.nodes[node].peer.shared.round
    delivery_s, gradient_s = run.delivery_bound_s, run.gradient_bound_s
    if round_ is None:
        return 3.0 * delivery_s + gradient_s
    clock, active = round_._clock, len(round_.attempt.roster.active)
    recomputed, judging = clock._recomputed, phase in ("PUBLISH", "HAVE", "JUDGE", "CLOSE")
    apart_s = 5.0 * delivery_s + max(1, recomputed if judging else 0) * gradient_s
    vector_s = run.entry_bytes * stage.task.dimension * active / run.minimum_rate
    bulk_s = apart_s + clock._tensors * vector_s if clock._tensors else 0.0
    busy = recomputed if judging or phase == "REPORT" else min(1, recomputed)
    own = 0 if judging else {"COMMIT": 1, "AGG": 1, "REPORT": 1}.get(phase, 0)
    attempt, late_s = round_.attempt, 0.0
    if phase == "COMMIT" and any(since == attempt.step for _, since in attempt.state.summary.returned):
        # Who was let back fetches five vectors before its first COMMIT, by a question and its answer.
        late_s = 2.0 * delivery_s + 5.0 * vector_s * 4 / run.entry_bytes
    elif phase == "COMMIT" and (attempt.step, attempt.number) == (0, 0):
        # Who has not heard every greeting waits as long for the others.
        late_s = 6.0 * delivery_s + 2.0 * gradient_s
    return apart_s + bulk_s + max(busy, own) * gradient_s + late_s


class Liveness:
    """Follows each honest peer from phase to phase; time stands still for a phase while an older step is disputed."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._next = dict.fromkeys(stage.honest, 0)
        self._further = dict.fromkeys(stage.honest, 0)
        """Undo steps after the last one."""
        self._began: dict[int, float] = {}
        self._bounds: dict[int, float] = {}
        self._settling: dict[int, float] = {}
        """What the next first phase of a peer may take longer, after an OUTCOME that some have to follow."""
        self._disputed: dict[tuple[int, int, int], tuple[float, int, bool]] = {}
        self._sizes: dict[tuple[int, int], int] = {}
        """Peers in an attempt that has ended, which may be disputed yet."""
        self._done: set[int] = set()

    def see(self, seen: Observed) -> None:
        node, now_s = seen.node, seen.time_s
        if node not in self._next:
            return
        match seen.output:
            case Halted() as halted:
                raise AssertionError(f"honest peer {node} halted: {halted.problem}")
            case PhaseEntered(phase=phase):
                self._phase_over(node, now_s)
                self._began[node] = now_s
                # Those who entered last suspect last; until then f + 1 SUSPECTs may be lacking.
                followed_s = self._settling.pop(node, 0.0) if phase == "COMMIT" else 0.0
                self._bounds[node] = 2.0 * phase_bound_s(self._stage, node, phase) + followed_s
            case Disputed() as disputed:
                self._phase_over(node, now_s)
                waits = awaits_another(self._stage, node)
                active = self._sizes.get((disputed.step, disputed.attempt)) or self._active(node)
                self._disputed[node, disputed.step, disputed.attempt] = now_s, active, waits
            case Resolved() as resolved:
                if resolved.outcome == "commit" and resolved.removals:
                    _, active, _ = self._disputed.get((node, resolved.step, resolved.attempt), (0.0, 0, False))
                    recomputed = judged(self._stage, node, resolved.step, resolved.attempt)
                    self._settling[node] = settling_s(self._stage, active, recomputed)
                self._dispute_over(node, now_s, (resolved.step, resolved.attempt))
            case Voided() as void:
                assert set(void.removals) & set(self._stage.roles), f"{void} removed nobody who is faulty"
                assert void.attempt < len(self._stage.roles), f"{void}: more attempts than faulty peers"
                self._sizes[void.step, void.attempt] = self._active(node) + len(void.removals)
            case Committed() as done:
                self._phase_over(node, now_s)
                assert done.step == self._next[node], f"peer {node} committed {done.step} after {self._next[node] - 1}"
                self._next[node] += 1
                self._sizes[done.step, done.attempt] = len(done.active)
            case Undone() as undone:
                self._further[node] += undone.step > self._stage.run.steps
            case Finished():
                assert self._next[node] == self._stage.run.steps + 1 + self._further[node]
                self._done.add(node)
            case Expelled():
                self._done.add(node)

    def end(self) -> None:
        unfinished = set(self._next) - self._done
        assert not unfinished, f"honest peers {sorted(unfinished)} never finished"

    def _active(self, node: int) -> int:
        return len(self._stage.simulation.nodes[node].peer.state.roster.active)

    def _phase_over(self, node: int, now_s: float) -> None:
        if any(who == node for who, _, _ in self._disputed):
            return
        took_s, bound_s = now_s - self._began.get(node, now_s), self._bounds.get(node, 0.0)
        assert took_s <= bound_s + 1e-6, f"a phase of peer {node} took {took_s} s until {now_s}, more than {bound_s} s"

    def _dispute_over(self, node: int, now_s: float, which: tuple[int, int]) -> None:
        self._began[node] = now_s
        if (node, *which) not in self._disputed:
            # A majority's OUTCOMEs reached a peer that had not begun: nothing to measure.
            return
        started_s, active, waits = self._disputed.pop((node, *which))
        took_s, bound_s = now_s - started_s, MARGIN * dispute_bound_s(self._stage, active, waits)
        assert took_s <= bound_s, f"the dispute of {which} took peer {node} {took_s} s, more than {bound_s} s"
