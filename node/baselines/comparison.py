"""Comparison runs: the same task, gradients, attacks and rules without the protocol, in one process.

A trusted server, a ring, a plain all-reduce and ByRDiE have no validators, no signatures and no bans. What they make of
an attack stands beside what the protocol makes of it, in the same journals.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from btard.node.adversary.adversary import Adversary
from btard.node.adversary.registry import check_topology
from btard.node.aggregation.pre import worker_momentum
from btard.node.baselines import topologies
from btard.node.build import settings_of, task_of, tools_of
from btard.node.config import NodeConfig, RunConfig
from btard.node.genesis.genesis import genesis_roster
from btard.node.plugins import extensions
from btard.node.protocol.api import Committed, Finished, GradientReady, Input, Output, Purpose
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.mprng import share
from btard.node.protocol.state.state import State
from btard.node.storage.journal import Journal
from btard.node.storage.recorder import NodeTotals, Recorder
from btard.node.training.environment import fingerprint, pin
from btard.node.training.task import Task

Ended = Callable[[int, int], None]


def train(
    configs: Sequence[NodeConfig],
    journals: Mapping[int, Journal],
    ended: Ended,
    bound: Callable[[], None],
    stopping: Callable[[], bool],
) -> None:
    """Train to the end and journal it as the workers of a cluster would; see
    `btard.node.drivers.simulated_cluster.run`.

    Raises:
        ConfigError: a topology that cannot do what is asked for, or an attack on what it does not have.
    """
    common = configs[0]
    pin(common.run.device, common.cuda_memory_fraction)
    extensions.load([Path(path) for path in common.imports])
    topologies.check(common.run)
    task = task_of(common.run, Path(common.data_directory))
    trainer = Trainer(configs, task)
    desks = {config.node: NodeTotals() for config in configs}
    recorders = {config.node: Recorder(config, journals[config.node], task, desks[config.node]) for config in configs}
    for node, recorder in recorders.items():
        recorder.attach(desks[node])
        journals[node].append("bound", control="comparison", bulk="comparison")
        journals[node].append("greeted", peers=sorted(recorders))
    bound()
    for _ in range(common.run.steps + 1):
        if stopping():
            break
        done = trainer.step(desks)
        for recorder in recorders.values():
            recorder.observe(done)
            if done.step == common.run.steps:
                recorder.observe(Finished(done.step, done.parameters_D, done.certificate))
    for node, recorder in recorders.items():
        recorder.attacked(trainer.attacked(node))
        recorder.end()
        ended(node, 0)


class Trainer:
    """All peers of a comparison run.

    Args:
        configs: of every peer; those with a role attack.
        task: shared by all.

    Raises:
        ConfigError: an unknown name, or an attack on something that these topologies do not have.
    """

    def __init__(self, configs: Sequence[NodeConfig], task: Task) -> None:
        common = configs[0]
        self._run: RunConfig = common.run
        self._task = task
        self._settings = settings_of(common.run_id, common.run, common.members, task.dimension,
                                     fingerprint(common.run.device, common.run.arithmetic))  # fmt: skip
        self._tools = tools_of(common.run, task)
        parameters_D, momentum_D = (
            task.initial(common.run.init_seed),
            self._tools.optimiser.initial_state(task.dimension),
        )
        self._state = State.genesis(genesis_roster(common.members), common.run.data_seed, parameters_D, momentum_D)
        self._peers = [config.node for config in configs]
        self._known: dict[int, tuple[Tensor, float]] = {}
        self._momenta_ND: Tensor | None = None
        self._inner = {config.node: _Inner() for config in configs if config.role is not None}
        self._adversaries = {config.node: self._adversary(config) for config in configs if config.role is not None}

    def attacked(self, node: int) -> list[int]:
        """The steps that a peer attacked."""
        return self._adversaries[node].attacked if node in self._adversaries else []

    def step(self, desks: Mapping[int, NodeTotals]) -> Committed:
        """One step of everybody; the one after the last trains nothing, as in the protocol."""
        state, trains = self._state, self._state.step < self._run.steps
        attempt = Attempt(self._settings, self._tools, state, 0, self._peers[0], share(b"", state.step, 0))
        parameters_D, optimiser_D = state.parameters_D, state.optimiser_D
        if trains:
            self._known = {}
            for inner in self._inner.values():
                inner.attempt = attempt
            rows_ND = torch.stack([self._contribution(attempt, peer, desks[peer]) for peer in self._peers])
            if self._run.worker_momentum:
                rows_ND = worker_momentum(rows_ND, self._momenta_ND, beta=self._run.worker_momentum)
                self._momenta_ND = rows_ND
            parameters_D, optimiser_D = self._update(state, topologies.aggregate(self._run, self._tools.rule, rows_ND))
            for sent in topologies.traffic(self._run, self._task.dimension, state.step):
                desks[sent.sender].counters.sent(sent.receiver, sent.kind, sent.size_bytes)
        done = replace(state, parameters_D=parameters_D, optimiser_D=optimiser_D).with_facts(step=state.step + 1)
        self._state, summary = done, done.summarise(b"")
        return Committed(
            step=state.step, attempt=0, contributors=attempt.contributors, active=state.roster.active, validators={},
            parameters_D=parameters_D, state_digest=summary.digest, certificate=b"", clip_iterations=0,
            parameter_digest=summary.parameters,
        )  # fmt: skip

    def _update(self, state: State, aggregate_D: Tensor) -> tuple[Tensor, Tensor]:
        """Parameters and momentum after the step; outside a block nothing changes, momentum included."""
        moved = self._tools.optimiser.apply(state.parameters_D, state.optimiser_D, [aggregate_D], state.step)
        block = topologies.updated(self._run, self._task.dimension, state.step)
        results = (state.parameters_D.clone(), state.optimiser_D.clone())
        for result_D, moved_D in zip(results, moved, strict=True):
            result_D[block] = moved_D[block]
        return results

    def _contribution(self, attempt: Attempt, peer: int, totals: NodeTotals) -> Tensor:
        """What a peer sends: its gradient, or what its attacks make of it."""
        adversary = self._adversaries.get(peer)
        began, cpu = time.perf_counter(), time.process_time()
        if adversary is None:
            gradient_D, totals.loss = self._honest(attempt, peer)
        else:
            transform = adversary.transform(attempt.step)
            if transform is None:
                gradient_D, totals.loss = self._honest(attempt, peer)
            else:
                gradient_D, totals.loss = self._task.gradient(attempt.state.parameters_D, attempt.seed(peer), transform)
            adversary.handle(GradientReady(Purpose.OWN, attempt.step, peer, gradient_D, totals.loss))
            gradient_D = self._inner[peer].sent_D
        totals.gradient_s += time.perf_counter() - began
        totals.gradient_cpu_s += time.process_time() - cpu
        return gradient_D

    def _honest(self, attempt: Attempt, peer: int) -> tuple[Tensor, float]:
        if peer not in self._known:
            self._known[peer] = self._task.gradient(attempt.state.parameters_D, attempt.seed(peer))
        return self._known[peer]

    def _adversary(self, config: NodeConfig) -> Adversary:
        assert config.role is not None
        check_topology(config.role, self._run.topology)
        inner, task = self._inner[config.node], self._task

        def recompute(peer: int) -> Tensor:
            assert inner.attempt is not None
            return self._honest(inner.attempt, peer)[0]

        made = Adversary(
            config.role, config.node, layout=task.layout, dimension=task.dimension, classes=task.classes,
            recompute=recompute, combine=lambda rows_ND: topologies.aggregate(self._run, self._tools.rule, rows_ND),
        )  # fmt: skip
        return made.around(inner)


class _Inner:
    """What stands where an adversary's honest peer would: it keeps what it is handed."""

    def __init__(self) -> None:
        self.attempt: Attempt | None = None
        self.comes_back = False
        self.sent_D = torch.empty(0)

    def handle(self, event: Input, /) -> list[Output]:
        """Keep the gradient that would be committed to; there is nobody to say anything to."""
        if isinstance(event, GradientReady):
            self.sent_D = event.gradient_D
        return []
