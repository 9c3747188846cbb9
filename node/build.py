"""The only wiring: from configuration and secrets to a node that a driver can run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from btard.node import kernels
from btard.node.adversary.adversary import Adversary
from btard.node.aggregation.resilience import rule_for
from btard.node.config import Endpoint, Member, NodeConfig, RunConfig, Secrets, shared
from btard.node.crypto.signing import Signer, verify
from btard.node.drivers.computing import one_at_a_time
from btard.node.errors import ConfigError
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.plugins import extensions
from btard.node.protocol.api import BulkKey, ComputeGradient, GradientReady, Input, Output, Purpose
from btard.node.protocol.attempt.mprng import batch_seed
from btard.node.protocol.attempt.verification import Arithmetic
from btard.node.protocol.peer import Peer
from btard.node.protocol.rule import Rule
from btard.node.protocol.settings import Decode, Optimiser, Settings, Tools, Verify
from btard.node.protocol.state.state import AttemptRecord, Resumption, Summary
from btard.node.protocol.wire.encoding import decode_body, encode_body, endorsement_bytes, signing_bytes
from btard.node.protocol.wire.messages import Body, Endorsed, Signed
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.durability import DurableMachine
from btard.node.training import probes, splits, start
from btard.node.training.environment import Environment, encoded, environment, explained
from btard.node.training.registry import OPTIMISERS, SESSION, UpdateContext, build_task
from btard.node.training.schedules import learning_rate
from btard.node.training.task import BatchTransform, Layer, Task, TaskContext


class Machine(Protocol):
    """The surface that a driver drives: a Peer, or a Peer between an adversary's filters."""

    def handle(self, event: Input, /) -> list[Output]:
        """Outputs that answer an input."""


Compute = Callable[[Tensor, bytes, BatchTransform | None], tuple[Tensor, float]]
"""(parameters, xi, batch transform) -> (gradient, loss): Task.gradient, or a cache around it."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node, ready to be driven.

    Args:
        id: genesis id.
        peer: the honest machine inside; drivers only ask it what it expects.
        machine: what inputs go to.
        adversary: the filters around the peer, None for an honest node.
        signer: signs what the machine says.
        task: the model and its data.
        checkpointer: where it notes what it needs after a crash, if anywhere.
        gradient: how it computes gradients; None: as the task does.
    """

    id: int
    peer: Peer
    machine: Machine
    adversary: Adversary | None
    signer: Signer
    task: Task
    checkpointer: Checkpointer | None = None
    gradient: Compute | None = None

    def keep(self) -> None:
        """Keep what an input has begun, before anything that it led to is sent (`DurableMachine`)."""
        if isinstance(self.machine, DurableMachine):
            self.machine.keep()

    def restore(self, at: Resumption, away_s: float = 0.0) -> None:
        """Before Start: go on where a checkpoint was written. Our own gradients are not in it, and are computed again:
        somebody may ask for them still.

        Args:
            at: what was kept.
            away_s: how long ago.
        """
        self.peer.restore(replace(at, past=self._with_own(at.past), before=self._with_own(at.before)), away_s)

    def _with_own(self, record: AttemptRecord | None) -> AttemptRecord | None:
        if record is None or record.own_D is not None or self.id not in record.contributors:
            return record
        settings, state = self.peer.shared.settings, record.state
        xi = batch_seed(settings.data_seed, state.summary.r, record.step, self.id, settings.shards)
        wanted = ComputeGradient(Purpose.OWN, record.step, self.id, state.parameters_D, xi)
        gradient_D = self.computation(wanted)().gradient_D
        return replace(record, own_D=settings.precision.rounded(gradient_D))

    def secure(self) -> None:
        """On return the disk has what this node needs to stand by all that it has signed; called before that leaves."""
        if self.checkpointer is not None:
            self.checkpointer.secure()

    def computation(self, wanted: ComputeGradient, compute: Compute | None = None) -> Callable[[], GradientReady]:
        """A ComputeGradient to be carried out, in any thread: what it needs of this node it has by now. An attack on
        the data concerns this node's own batch alone.

        Args:
            wanted: what is asked for.
            compute: computes gradients; None: this node's own.
        """
        compute = compute or self.gradient or self.task.gradient
        transform = None
        if self.adversary is not None and wanted.purpose is Purpose.OWN:
            transform = self.adversary.transform(wanted.step)

        def carried_out() -> GradientReady:
            gradient_D, loss = compute(wanted.parameters_D, wanted.seed, transform)
            return GradientReady(wanted.purpose, wanted.step, wanted.peer, gradient_D, loss)

        return carried_out

    def compute(self, wanted: ComputeGradient, compute: Compute) -> GradientReady:
        """Carry out a ComputeGradient here and now."""
        return self.computation(wanted, compute)()

    def sign(self, body: Body) -> Signed:
        """A message as it goes out."""
        data = encode_body(body)

        def signed(data: bytes) -> Signed:
            return Signed(data, self.signer.sign(signing_bytes(body, data)))

        return signed(data) if self.checkpointer is None else self.checkpointer.sign(data, signed)

    def endorse(self, endorsed: Endorsed) -> Endorsed:
        """A relayed view with this node's signature added."""
        before = tuple(peer for peer, _ in endorsed.endorsements)
        owner = decode_body(endorsed.view.body).slot.sender
        signature = self.signer.sign(endorsement_bytes(endorsed.view.body, owner, before))
        return Endorsed(endorsed.view, (*endorsed.endorsements, (self.id, signature)))

    def expects(self, via: int, key: BulkKey, size_bytes: int) -> bool:
        """For the transport: would this tensor be kept?"""
        return self.peer.expects(via, key, size_bytes)


def newcomers_of(summary: Summary) -> dict[int, tuple[Member, Endpoint]]:
    """Whom a state names beside the founders, by id, and where each said that it is reached."""
    return {
        each.peer: (Member(each.peer, each.key.hex(), each.transport), Endpoint(each.control, each.bulk))
        for each in summary.register.newcomers
    }


def settings_of(run_id: str, run: RunConfig, members: Sequence[Member], dimension: int, fingerprint: bytes) -> Settings:
    """The protocol's numbers from a run's configuration.

    Raises:
        ConfigError: the model has fewer parameters than the run has peers.
    """
    if dimension < run.capacity:
        option = "peers" if run.capacity == run.peers else "members"
        raise ConfigError(f"a model of {dimension} parameters cannot be split among --{option} {run.capacity}")
    derived: dict[str, Any] = {
        "run": genesis_digest(run_id, run, members),
        "fingerprint": fingerprint,
        "dimension": dimension,
        "validators_contribute": run.everyone_contributes,
        "reform": run.on_ban == "reform",
        "shards": run.split.name != "iid",
    }
    return Settings(**{**shared(run, (each.name for each in fields(Settings))), **derived})


def task_of(run: RunConfig, data_directory: Path) -> Task:
    """The run's task on its data.

    Raises:
        ConfigError: an unknown task, split or parameter, or a file of `--import` that has not been loaded.
        DataError: its data is missing or corrupt.
    """
    extensions.require(run.imports)
    task = build_task(run.task, TaskContext(data_directory, run.batch_size, run.device, splits.deal_of(run)))
    return task if run.init is None else start.StartedFrom(task, start.read(data_directory, run.init, task.dimension))


def optimiser_of(run: RunConfig, dimension: int, layout: tuple[Layer, ...]) -> Optimiser:
    """The run's update of a task's parameters.

    Args:
        run: its optimiser, schedule and steps.
        dimension: D.
        layout: the task's.

    Raises:
        ConfigError: an unknown optimiser, schedule or parameter, or one that the run or the task is no match for.
    """
    name, parameters = run.optimiser.name, run.optimiser.parameters
    OPTIMISERS.check(name, parameters)
    entry = OPTIMISERS.get(name)
    if run.recompute_tolerance > 0 and not entry.facts["portable"]:
        raise ConfigError(
            f"--optimiser {name} gives other bits on other processors, and --recompute-tolerance "
            f"{run.recompute_tolerance} is for such; use sgd, adam or adamw"
        )
    return entry.target(UpdateContext(learning_rate(run), dimension, layout, run.momentum), **parameters)


def largest_tensor(run: RunConfig, task: Task) -> int:
    """Entries of the largest vector that peers send each other: the parameters, or the optimiser's state."""
    return max(task.dimension, optimiser_of(run, task.dimension, task.layout).initial_state(task.dimension).numel())


def tools_of(run: RunConfig, task: Task | None = None, check: Verify = verify) -> Tools:
    """The run's rule and update, with a signature check.

    Args:
        run: its configuration.
        task: what the update is of; None: to judge with, which updates nothing.
        check: the signature check.

    Raises:
        ConfigError: an unknown rule or optimiser or parameter, or one that the run is no match for.
    """
    rule = rule_for(run)
    optimiser = optimiser_of(RunConfig(), 1, ()) if task is None else optimiser_of(run, task.dimension, task.layout)
    compiled = kernels.library() is not None
    arithmetic = Arithmetic(kernels.sums, kernels.squares) if compiled else Arithmetic()
    return Tools(rule, optimiser, check, arithmetic, explained)


def environment_of(run: RunConfig, task: Task | None) -> Environment:
    """This process's environment, with what the run's task, update and rule compute in it.

    Args:
        run: its configuration.
        task: None: its data is not here, and no gradient is probed. Neither is a session's, whose own program repeats
            requests.

    Raises:
        ConfigError: an unknown rule or optimiser or parameter, or one that the run is no match for.
    """
    made = optimiser_of(run, probes.LAYOUT[-1].stop, probes.LAYOUT)
    found = () if task is None or run.task.name == SESSION else probes.of_gradient(task, run.init_seed, run.batch_size)
    found += probes.of_update(run.optimiser.name, made, run.steps)
    if run.arithmetic == "native":  # the rules need no equal bits: a judge accepts an aggregate by its residual
        found += probes.of_rule(run.rule.name, rule_for(run), run.peers, run.tau)
    return environment(run.device, run.arithmetic, found)


def fingerprint_of(run: RunConfig, task: Task) -> bytes:
    """Canonical bytes of `environment_of(run, task)`, which peers compare."""
    return encoded(environment_of(run, task))


def build_node(
    config: NodeConfig, secrets: Secrets, task: Task, fingerprint: bytes, check: Verify | None = None,
    compute: Compute | None = None, checkpointer: Checkpointer | None = None, decode: Decode = decode_body,
) -> Node:  # fmt: skip
    """Wire one node.

    Args:
        config, secrets: of this node.
        task: built once per process (simulated nodes share it).
        fingerprint: of the environment its gradients are computed in.
        check: the signature check; a simulator shares one that remembers. None: this node's own.
        compute: an attacker's means to recompute gradients; None: `task.gradient`.
        checkpointer: where the node notes what it needs after a crash; None: nowhere.
        decode: reads message bodies; a simulator shares one that remembers.

    Raises:
        ConfigError: an unknown attack, rule or parameter.
    """
    run, me = config.run, config.node
    settings = settings_of(config.run_id, run, config.members, task.dimension, fingerprint)
    signer = Signer(bytes.fromhex(secrets.signing_seed))
    tools = replace(tools_of(run, task, check or signer.verify), decode=decode)
    settings = replace(settings, optimiser_entries=tools.optimiser.initial_state(task.dimension).numel())
    gradient = compute or task.gradient
    if config.role is not None:
        gradient = one_at_a_time(gradient)
    knowledge = _PublicKnowledge(gradient, tools.rule)
    adversary = _adversary(config, task, knowledge)
    if adversary is not None:
        tools = replace(tools, rule=adversary.wrap_rule(tools.rule))
    seed = bytes.fromhex(secrets.randomness_seed)
    knowledge.peer = peer = Peer(
        settings, tools, genesis_roster(config.members, run.members), me, seed, task.initial(run.init_seed)
    )
    machine: Machine = adversary.around(peer) if adversary is not None else peer
    if checkpointer is not None:
        machine = DurableMachine(machine, peer, checkpointer)
    return Node(me, peer, machine, adversary, signer, task, checkpointer, gradient)


class _PublicKnowledge:
    """What an attacker can compute itself: the seeds, the parameters and the rule are public."""

    def __init__(self, compute: Compute, rule: Rule) -> None:
        self._compute = compute
        self._rule = rule
        self._known: dict[int, Tensor] = {}
        self._known_step = -1
        self.peer: Peer | None = None

    def honest_gradient(self, other: int) -> Tensor:
        """The gradient that `other` should have computed in the current step; each is computed once.

        Raises:
            LookupError: no step has begun.
        """
        attempt = self.peer.attempt if self.peer is not None else None
        if attempt is None:
            raise LookupError(f"no step has begun, so peer {other} has no gradient yet")
        if attempt.step != self._known_step:
            self._known, self._known_step = {}, attempt.step
        if other not in self._known:
            gradient_D, _ = self._compute(attempt.state.parameters_D, attempt.seed(other), None)
            self._known[other] = attempt.settings.precision.rounded(gradient_D)
        return self._known[other]

    def combine(self, rows_ND: Tensor) -> Tensor:
        """What honest aggregators would make of these contributions in the current attempt.

        Raises:
            LookupError: no step has begun.
        """
        attempt = self.peer.attempt if self.peer is not None else None
        if attempt is None:
            raise LookupError("no step has begun, so there is nothing to aggregate")
        return attempt.settings.precision.rounded(torch.cat([
            self._rule.aggregate(rows_ND[:, start:stop].contiguous(), attempt.radii[part]).value_P
            for part, (start, stop) in enumerate(attempt.split.bounds)
        ]))  # fmt: skip


def _adversary(config: NodeConfig, task: Task, knowledge: _PublicKnowledge) -> Adversary | None:
    if config.role is None:
        return None
    return Adversary(
        config.role,
        config.node,
        layout=task.layout,
        dimension=task.dimension,
        classes=task.classes,
        recompute=knowledge.honest_gradient,
        combine=knowledge.combine,
    )
