"""Peers that are killed and started again, in virtual time: every promise holds, whoever else attacks meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from node.build import Node, build_node, genesis_digest, genesis_roster, task_of
from node.conditions import Churn, Conditions, Event, Window
from node.config import NodeConfig, Plugin, Role, RunConfig, Schedule
from node.direction import Cue, Director
from node.keeper import Keeper
from node.keys import generate
from node.links import LinkModel
from node.memory import remembering, remembering_gradients
from node.network import Network
from node.protocol.events import Banned, Committed, Finished, Input, Suspected
from node.signing import verify
from node.simulator import Observed, Simulation, Stage
from node.training.environment import fingerprint
from tests.simulation.checkers import PROMISES
from tests.simulation.checkers.cost import Cost
from tests.simulation.stage import RUN_ID, play
from tests.simulation.stage import Stage as Watched

RUN = RunConfig(peers=6, task=Plugin("quadratic"), steps=16, batch_size=4)
ATTACK = Role((Plugin("sign_flip"),), Schedule(start=2), (4, 5), attack_seed=3)
KEPT = tuple(promise for promise in PROMISES if promise is not Cost)
"""A peer that starts again says and asks more than a step's share of messages."""


class Cluster:
    """A simulated cluster whose nodes keep what they need to start again."""

    def __init__(self, where: Path, conditions: Conditions, roles: dict[int, Role], seed: int) -> None:
        self.members, self.secrets = generate(seed, RUN.peers)
        self.task = task_of(RUN, Path("unused"))
        self.where, self.roles, self.played = where, roles, list[Cue]()
        self.check, self.compute = remembering(verify), remembering_gradients(self.task)
        self.keepers: dict[int, Keeper] = {}
        nodes = {me: self.make(me)[0] for me in range(RUN.peers)}
        network = Network(LinkModel(jitter_s=0.02, seed=seed), conditions)
        stage = Stage(Director(conditions), lambda now_s, cue: self.played.append(cue), self.make)
        simulation = Simulation(nodes, network, self.compute, stage=stage)
        self.watched = Watched(RUN, roles, seed, self.task, simulation)

    def make(self, me: int) -> tuple[Node, list[Input]]:
        """A node, from where it was if it is made again."""
        if me in self.keepers:
            self.keepers[me].close()
        print_ = fingerprint(RUN.device)
        keeper = self.keepers[me] = Keeper(self.where / str(me), genesis_digest(RUN_ID, RUN, self.members), me, print_)
        config = NodeConfig(RUN_ID, me, RUN, self.members, "", "", "", role=self.roles.get(me))
        node = build_node(config, self.secrets[me], self.task, print_, self.check, self.compute, keeper)
        at = keeper.newest(genesis_roster(self.members))
        if at is not None:
            node.peer.restore(at)
        return node, keeper.recall(at.state.step if at is not None else 0)

    def play(self, promises: tuple[type, ...] = KEPT) -> list[Observed]:
        """To the end, under the eyes of the checkers."""
        seen = play(self.watched, promises)
        for keeper in self.keepers.values():
            keeper.close()
        return seen


def digests(seen: list[Observed]) -> dict[int, set[bytes]]:
    found: dict[int, set[bytes]] = {}
    for each in seen:
        if isinstance(each.output, Committed):
            found.setdefault(each.output.step, set()).add(each.output.state_digest)
    return found


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


@pytest.mark.parametrize("seed", range(2))
def test_attackers_are_banned_and_nobody_else_while_an_honest_peer_comes_and_goes(seed: int, tmp_path: Path) -> None:
    hits = (Event(Window("step", 4), "kill", (seed,), "kill"), Event(Window("s", 4.0), "restart", (seed,), "restart"))
    cluster = Cluster(tmp_path, Conditions(events=hits), dict.fromkeys((4, 5), ATTACK), seed)
    seen = cluster.play()
    banned = {each.output.peer for each in seen if isinstance(each.output, Banned) and each.node not in (4, 5)}
    assert banned <= {4, 5}
    assert {each.node for each in seen if isinstance(each.output, Finished)} >= {0, 1, 2, 3}


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
