"""Peers that are killed and started again, in virtual time: every promise holds, whoever else attacks meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.config import Plugin, Role, Schedule
from btard.node.netem.conditions import Churn, Conditions, Event, Window
from btard.node.protocol.api import Banned, Finished, Suspected
from tests.simulation.restarting import RUN, Cluster, digests

ATTACK = Role((Plugin("sign_flip"),), Schedule(start=2), (4, 5), attack_seed=3)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_honest_peers_that_come_and_go_change_nothing(seed: int, tmp_path: Path) -> None:
    """A peer is killed at every second step, back after half a second: no ban, no removal, and the same digests as
    without it. Whatever it was sent meanwhile is lost."""
    churn = Conditions(churn=(Churn(Window("step", 1, 15), 0.5, RUN.peers, "churn"),), seed=seed)
    with_churn = Cluster(tmp_path / "churn", churn, {}, seed)
    seen = with_churn.play()
    assert sum(cue.action == "restart" for cue in with_churn.played) >= 2
    assert not [each for each in seen if isinstance(each.output, Banned)]
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(RUN.peers))
    assert digests(seen) == digests(Cluster(tmp_path / "calm", Conditions(), {}, seed).play())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_attackers_are_banned_and_nobody_else_while_an_honest_peer_comes_and_goes(seed: int, tmp_path: Path) -> None:
    hits = (Event(Window("step", 4), "kill", (seed,), "kill"), Event(Window("s", 4.0), "restart", (seed,), "restart"))
    cluster = Cluster(tmp_path, Conditions(events=hits), dict.fromkeys((4, 5), ATTACK), seed)
    seen = cluster.play()
    banned = {each.output.peer for each in seen if isinstance(each.output, Banned) and each.node not in (4, 5)}
    assert banned <= {4, 5}
    assert {each.node for each in seen if isinstance(each.output, Finished)} >= {0, 1, 2, 3}


@pytest.mark.slow
def test_a_whole_cluster_started_again_goes_on_with_the_same_digests(tmp_path: Path) -> None:
    everyone = tuple(range(RUN.peers))
    hits = (
        Event(Window("step", 6), "kill", everyone, "kill"),
        Event(Window("s", 30.0), "restart", everyone, "restart"),
    )
    seen = Cluster(tmp_path / "killed", Conditions(events=hits), {}, 1).play()
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(everyone)
    assert digests(seen) == digests(Cluster(tmp_path / "calm", Conditions(), {}, 1).play())
    assert not [each for each in seen if isinstance(each.output, Suspected)]
