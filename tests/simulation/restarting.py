"""A simulated cluster whose nodes keep on disk what they need to start again, for tests that kill them."""

from __future__ import annotations

from pathlib import Path

from btard.node.build import Node, build_node, fingerprint_of, task_of
from btard.node.config import NodeConfig, Plugin, Role, RunConfig
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import verify
from btard.node.drivers.scheduler import ScheduledEvent, Scheduler
from btard.node.drivers.simulator import Observed, Simulation, SimulationControl, remembering, remembering_gradients
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.netem.conditions import Conditions
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network
from btard.node.protocol.api import Committed, Input
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from btard.node.storage.recovery import without_dispute
from tests.simulation.checkers import PROMISES
from tests.simulation.checkers.cost import Cost
from tests.simulation.stage import RUN_ID, play
from tests.simulation.stage import Stage as Watched

RUN = RunConfig(peers=6, task=Plugin("quadratic"), steps=16, batch_size=4)
KEPT = tuple(promise for promise in PROMISES if promise is not Cost)
"""A peer that starts again says and asks more than a step's share of messages."""


class Cluster:
    """A simulated cluster whose nodes keep what they need to start again."""

    def __init__(
        self, where: Path, conditions: Conditions, roles: dict[int, Role], seed: int, run: RunConfig = RUN
    ) -> None:
        self.run = run
        self.members, self.secrets = generate(seed, run.peers)
        self.task = task_of(self.run, Path("unused"))
        self.where, self.roles, self.played = where, roles, list[ScheduledEvent]()
        self.check, self.compute = remembering(verify), remembering_gradients(self.task)
        self.keepers: dict[int, Checkpointer] = {}
        nodes = {me: self.make(me)[0] for me in range(self.run.peers)}
        network = Network(LinkModel(jitter_s=0.02, seed=seed), conditions)
        stage = SimulationControl(Scheduler(conditions), lambda now_s, cue: self.played.append(cue), self.make)
        simulation = Simulation(nodes, network, self.compute, stage=stage)
        self.watched = Watched(self.run, roles, seed, self.task, simulation)

    def make(self, me: int) -> tuple[Node, list[Input]]:
        """A node, from where it was if it is made again."""
        if me in self.keepers:
            self.keepers[me].close()
        print_ = fingerprint_of(self.run, self.task)
        genesis = genesis_digest(RUN_ID, self.run, self.members)
        checkpointer = self.keepers[me] = Checkpointer(self.where / str(me), genesis, me, print_, Disk(waits=False))
        config = NodeConfig(RUN_ID, me, self.run, self.members, "", "", "", role=self.roles.get(me))
        node = build_node(config, self.secrets[me], self.task, print_, self.check, self.compute, checkpointer)
        at = checkpointer.newest(genesis_roster(self.members), node.peer.shared.tools.optimiser)
        if at is not None:
            node.restore(at)
        return node, checkpointer.recall(*((at.state.step, at.number) if at is not None else (0, 0)))

    def play(self, promises: tuple[type, ...] = KEPT) -> list[Observed]:
        """To the end, under the eyes of the checkers."""
        seen = play(self.watched, promises)
        for checkpointer in self.keepers.values():
            checkpointer.close()
        return seen


class Halves(Cluster):
    """Nodes that are started again as those that halted are."""

    def make(self, me: int) -> tuple[Node, list[Input]]:
        again = me in self.keepers
        node, heard = super().make(me)
        update = node.peer.shared.tools.optimiser
        at = self.keepers[me].newest(genesis_roster(self.members), update) if again else None
        if at is not None:
            at, left = without_dispute(self.keepers[me], at, tuple(heard))
            node.restore(at)
            heard = list(left)
        return node, heard


def digests(seen: list[Observed]) -> dict[int, set[bytes]]:
    """State digests by step, of all nodes together."""
    found: dict[int, set[bytes]] = {}
    for each in seen:
        if isinstance(each.output, Committed):
            found.setdefault(each.output.step, set()).add(each.output.state_digest)
    return found
