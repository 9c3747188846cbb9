"""What the checkers look at: a simulated cluster together with the truth about who is Byzantine."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

from btard.node.adversary.adversary import Adversary
from btard.node.build import fingerprint_of, settings_of, tools_of
from btard.node.config import Role, RunConfig
from btard.node.crypto.keys import generate
from btard.node.drivers.simulator import Observed, Simulation, cluster
from btard.node.genesis.genesis import genesis_roster
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import PhaseEntered
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.evidence.verifier import Ground
from btard.node.training.registry import build_task
from btard.node.training.task import Task, TaskContext

RUN_ID = "simulated"


@dataclass(frozen=True)
class Stage:
    """One run before it starts.

    Args:
        run, roles, protocol_seed, task: what it was built from.
        simulation: the cluster.
    """

    run: RunConfig
    roles: Mapping[int, Role]
    protocol_seed: int
    task: Task
    simulation: Simulation

    @cached_property
    def honest(self) -> tuple[int, ...]:
        """Ids of the peers that follow the protocol."""
        return tuple(peer for peer in range(self.run.peers) if peer not in self.roles)

    @cached_property
    def keys(self) -> tuple[bytes, ...]:
        """Ed25519 keys by id, of the founders and of whoever may come."""
        identities, _ = generate(self.protocol_seed, self.run.capacity)
        return genesis_roster(identities).keys

    @property
    def witness(self) -> int:
        """The honest peer whose outputs stand for everyone's where agreement has been checked."""
        return self.honest[0]

    def adversary(self, peer: int) -> Adversary:
        """The filters around a Byzantine peer."""
        adversary = self.simulation.nodes[peer].adversary
        assert adversary is not None
        return adversary

    @cached_property
    def _fingerprint(self) -> bytes:
        return fingerprint_of(self.run, self.task)

    def ground(self) -> Ground:
        """What a third party knows of this run."""
        members, _ = generate(self.protocol_seed, self.run.peers)
        settings = settings_of(RUN_ID, self.run, members, self.task.dimension, self._fingerprint)
        return Ground(
            settings,
            tools_of(self.run),
            genesis_roster(members).keys,
            self.task.initial(self.run.init_seed),
            lambda parameters_D, seed: self.task.gradient(parameters_D, seed)[0],
        )


def run_until(stage: Stage, node: int, step: int, phase: str, attempt: int = 0) -> Round:
    """Stop the cluster when a node has entered a phase; its round then holds whatever has arrived."""
    for seen in stage.simulation.run():
        entered = seen.output
        if seen.node == node and entered == PhaseEntered(step, attempt, phase):
            round_ = stage.simulation.nodes[node].peer.shared.round
            assert round_ is not None
            return round_
    raise AssertionError(f"peer {node} never entered {phase} of step {step}")


class Checker(Protocol):
    """Watches one run; an AssertionError says which promise broke."""

    def see(self, seen: Observed) -> None:
        """One output of one node, in the order of virtual time."""

    def end(self) -> None:
        """Nothing is left to happen."""


def set_up(
    run: RunConfig,
    roles: Mapping[int, Role] | None = None,
    protocol_seed: int = 0,
    links: LinkModel | None = None,
    task: Task | None = None,
    newcomers: Mapping[int, int] | None = None,
) -> Stage:
    """A simulated cluster, ready to be played; newcomers by id, with the step in which each applies."""
    task = task or build_task(run.task, TaskContext(Path("unused"), run.batch_size))
    roles = dict(roles or {})
    simulation = cluster(run, task, roles, protocol_seed, links, RUN_ID, newcomers=newcomers)
    return Stage(run, roles, protocol_seed, task, simulation)


def play(stage: Stage, promises: Iterable[Callable[[Stage], Checker]], until_s: float = float("inf")) -> list[Observed]:
    """Run to the end under the eyes of the checkers.

    Returns:
        Everything that the nodes reported.

    Raises:
        AssertionError: a promise is broken.
    """
    checkers = [promise(stage) for promise in promises]
    seen = []
    for observed in stage.simulation.run(until_s):
        seen.append(observed)
        for checker in checkers:
            checker.see(observed)
    for checker in checkers:
        checker.end()
    return seen
