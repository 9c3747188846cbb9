"""A peer that comes back is told lies by one of those that teach it: they stop it no more than silence would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from btard.node.build import Machine, Node
from btard.node.crypto.signing import Signer
from btard.node.drivers.simulator import Observed
from btard.node.netem.conditions import Conditions
from btard.node.protocol.api import Finished, Input, Output, Returned, SendSnapshot
from btard.node.protocol.state_sync.messages import Snapshot
from tests.simulation.lies import LIES, Lie
from tests.simulation.restarting import Cluster, digests
from tests.simulation.test_rejoin import RUN, killed, outputs, removals

LIAR, AWAY = 0, 5


class Teacher:
    """A machine below the one that keeps: what it teaches passes through a function."""

    def __init__(self, inner: Machine, lie: Callable[[Snapshot], Snapshot]) -> None:
        self._inner, self._lie = inner, lie
        self.told = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    def handle(self, event: Input, /) -> list[Output]:
        return [self._rewritten(output) for output in self._inner.handle(event)]

    def _rewritten(self, output: Output) -> Output:
        if not isinstance(output, SendSnapshot):
            return output
        snapshot = self._lie(output.snapshot)
        self.told += snapshot != output.snapshot
        return replace(output, snapshot=snapshot)


def taught(where: Path, lie: Lie, kind: type[Cluster] = Cluster) -> tuple[Teacher, list[Observed], Cluster]:
    """A run in which one peer is killed and comes back, and is lied to by another."""
    cluster = kind(where, Conditions(events=killed((AWAY,), 3, 5)), {}, 0, RUN)
    signer = Signer(bytes.fromhex(cluster.secrets[LIAR].signing_seed))
    keeping = cluster.watched.simulation.nodes[LIAR].machine
    keeping._machine = teacher = Teacher(keeping._machine, lambda snapshot: lie(snapshot, signer, LIAR))  # type: ignore[attr-defined]
    return teacher, cluster.play(()), cluster


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LIES))
def test_a_lie_in_a_lesson_keeps_nobody_out(name: str, tmp_path: Path) -> None:
    """The liar comes first among those that tell the same states: its lesson is the first to be looked into."""
    teacher, seen, _ = taught(tmp_path, LIES[name])
    assert teacher.told
    assert removals(seen) == {(AWAY, "silent")}
    assert {each.output.peer for each in outputs(seen, Returned)} == {AWAY}
    assert {each.node for each in outputs(seen, Finished)} == set(range(RUN.peers))
    assert all(len(found) == 1 for found in digests(seen).values())


class Watched(Cluster):
    """A cluster that notes the norms of the states that a peer holds after it has been started again."""

    norms: list[tuple[tuple[float, ...], ...]]

    def make(self, me: int) -> tuple[Node, list[Input]]:
        node, heard = super().make(me)
        if self.played:
            self.norms, handle = [], node.peer.handle

            def noting(event: Input) -> list[Output]:
                result = handle(event)
                self.norms.append(node.peer.state.norms.steps)
                return result

            node.peer.handle = noting  # type: ignore[method-assign]
        return node, heard


def test_of_a_liars_own_words_nothing_is_kept(tmp_path: Path) -> None:
    """A lesson of a state that lets nobody back says nothing of the step before: a liar's could hold megabytes."""
    _, seen, cluster = taught(tmp_path, LIES["other norms"], Watched)
    assert isinstance(cluster, Watched)
    assert {each.node for each in outputs(seen, Finished)} == set(range(RUN.peers))
    assert any(cluster.norms)
    assert all(len(step) <= RUN.peers**2 for norms in cluster.norms for step in norms)
