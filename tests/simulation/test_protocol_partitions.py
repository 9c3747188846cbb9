"""Synchrony at its limit, and broken: any delay and loss within the bounds removes nobody; a partition bans nobody,
and the side without a quorum halts. Attackers have no part in it."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from btard.node.drivers.simulator import Simulation, cluster
from btard.node.netem.links import Link, LinkModel
from btard.node.protocol.api import Banned, Committed, Disputed, Expelled, Finished, Halted
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext
from tests.simulation.attacked import LINKS, configuration, play

SEEDS = 30
BOUND_S = 0.5
CUT_AFTER = 2
"""The step after which a partition begins."""


def links_within_synchrony(seed: int) -> LinkModel:
    """Every message arrives within the bound: in part by delay, in part by lost transmissions that are repeated."""
    lots = random.Random(seed)
    overrides = {}
    for sender, receiver in ((s, r) for s in range(8) for r in range(8) if s != r):
        delay_s = lots.choice((0.0, 0.001, 0.1, 0.2, 0.499)) * lots.random()
        loss = lots.choice((0.0, 0.05, 0.3))
        # 2^-40 of all messages would exceed the bound: `transmissions` is not set, so none is lost for good.
        retransmit_s = (BOUND_S - delay_s) / 25.0 if loss else 0.0
        jitter_s = 0.3 * (BOUND_S - delay_s) * lots.random()
        overrides[(sender, receiver)] = Link(
            delay_s, jitter_s, loss, retransmit_s, duplicate=lots.choice((0.0, 0.3)), bandwidth_bytes_per_s=1e7
        )
    return LinkModel(seed=seed, overrides=overrides)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_honest_peers_under_any_delay_and_loss_remove_nobody(seed: int) -> None:
    run = configuration(peers=4 + seed % 5, steps=4)
    story = play([], (), run=run, links=links_within_synchrony(seed), seed=seed)
    assert story.removed == []
    assert not story.suspected
    assert not story.disputes


# --- partitions ---------------------------------------------------------------------------------------------------


@dataclass
class Aftermath:
    """What became of every peer of a partitioned cluster."""

    digests: dict[int, dict[int, bytes]] = field(default_factory=dict)
    reasons: set[str] = field(default_factory=set)
    removed: dict[int, set[int]] = field(default_factory=dict)
    ends: dict[int, object] = field(default_factory=dict)

    def peers(self, kind: type) -> set[int]:
        return {peer for peer, end in self.ends.items() if isinstance(end, kind)}


def partitioned(cut: Iterable[tuple[int, int]], steps: int = 6, heals: bool = False) -> Aftermath:
    """Six honest peers; once step `CUT_AFTER` is committed the links of `cut` carry nothing any more, or nothing until
    somebody begins a dispute."""
    run = configuration(steps=steps)
    simulation: Simulation = cluster(
        run, build_task(run.task, TaskContext(Path("unused"), run.batch_size)), links=LINKS
    )
    broken = LinkModel(delay_s=LINKS.delay_s, jitter_s=LINKS.jitter_s, overrides=dict.fromkeys(cut, Link(loss=1.0)))
    after = Aftermath()
    for seen in simulation.run(max_events=400_000):
        match seen.output:
            case Committed(step=step, state_digest=digest):
                after.digests.setdefault(step, {})[seen.node] = digest
                if step == CUT_AFTER:
                    simulation.network.model = broken
            case Disputed() if heals:
                simulation.network.model = LINKS
            case Banned(peer=peer, reason=reason):
                after.reasons.add(reason)
                after.removed.setdefault(seen.node, set()).add(peer)
            case Finished() | Halted() | Expelled() as end:
                after.ends[seen.node] = end
    assert set(after.ends) == set(range(run.peers)), "every peer comes to an end"
    for step, digests in after.digests.items():
        assert len(set(digests.values())) == 1, f"step {step}: peers hold different states"
    return after


def between(one: Iterable[int], other: Iterable[int]) -> list[tuple[int, int]]:
    other = tuple(other)
    return [pair for a in one for b in other for pair in ((a, b), (b, a))]


def test_a_partition_into_halves_halts_both() -> None:
    after = partitioned(between((0, 1, 2), (3, 4, 5)))
    assert after.peers(Halted) == set(range(6))
    assert not after.reasons
    assert max(after.digests) <= CUT_AFTER + 1


def test_halves_that_meet_again_in_their_dispute_do_not_remove_each_other() -> None:
    """Each half's suspicions are enough to remove the other: both together would leave nobody."""
    after = partitioned(between((0, 1, 2), (3, 4, 5)), heals=True)
    assert after.peers(Halted) == set(range(6))
    assert not after.reasons
    assert max(after.digests) <= CUT_AFTER + 1


def test_a_partition_four_to_two_goes_on_without_the_two() -> None:
    """They are gone, not banned, and halt with their state."""
    after = partitioned(between((0, 1, 2, 3), (4, 5)))
    assert after.peers(Finished) == {0, 1, 2, 3}
    assert after.peers(Halted) == {4, 5}
    assert after.reasons == {"silent"}
    assert all(after.removed[peer] == {4, 5} for peer in range(4))
    assert not {4, 5} & set(after.removed)


def test_peers_that_are_heard_by_nobody_are_gone() -> None:
    after = partitioned([(sender, receiver) for sender in (4, 5) for receiver in range(4)])
    assert after.peers(Finished) == {0, 1, 2, 3}
    assert after.reasons <= {"silent"}
    assert all(after.removed[peer] == {4, 5} for peer in range(4))


def test_peers_that_hear_nobody_are_gone() -> None:
    after = partitioned([(sender, receiver) for sender in range(4) for receiver in (4, 5)])
    assert after.peers(Finished) == {0, 1, 2, 3}
    assert after.peers(Halted) == {4, 5}
    assert after.reasons <= {"silent", "withheld"}


@pytest.mark.parametrize("cut", [[(0, 1)], [(0, 1), (1, 0)], [(2, 5), (5, 3)]], ids=str)
def test_single_links_are_bridged_by_the_others(cut: list[tuple[int, int]]) -> None:
    """Three complaints of a pair are edges, a fourth would break both off."""
    after = partitioned(cut, steps=CUT_AFTER + 2)
    assert after.peers(Finished) == set(range(6))
    assert not after.reasons
