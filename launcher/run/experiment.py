"""The experiment a user asks for: one frozen value, from which everything that runs is derived."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec
from blake3 import blake3

from btard.launcher.options import syntax
from btard.launcher.run.roles import assign
from btard.node.config import (
    CLOSE_STEPS,
    Contribute,
    Durability,
    Endpoint,
    Member,
    NodeConfig,
    Plugin,
    Role,
    RunConfig,
    Schedule,
    shared,
)
from btard.node.errors import ConfigError
from btard.node.limits import Wire
from btard.node.netem.conditions import Conditions
from btard.node.plugins import extensions
from btard.node.protocol.wire import messages

IMPORTS, CEREMONY = "imports", "ceremony"
"""Folders of a run directory: the files that the run was made with, and its members' proposals and approvals."""

BACKENDS = ("local", "simulated", "compose")
"""Where workers may run."""

_CAUGHT_STEPS = 60
_RUN = RunConfig()
_SCHEDULE = Schedule()


class Seeds(msgspec.Struct, frozen=True):
    """The four seeds of a run: initial parameters, mini-batches, attackers, and keys with their randomness.

    `protocol` None: keys and protocol secrets come from the system, and no seed tells them; a run directory for others
    does not have it.
    """

    init: int
    data: int
    attack: int
    protocol: int | None


class Experiment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every option of a run; what `RunConfig` knows has its default from there.

    Names are those of the command line (`--batch-size` is `batch_size`); durations are seconds. `None` stands for
    "auto", "derived" or "no limit". `attack` and `role` are written as on the command line.
    """

    peers: int = _RUN.peers
    byzantine: int = 0
    attack: str | None = None
    role: tuple[str, ...] = ()
    attack_start: int = _SCHEDULE.start
    attack_every: int = _SCHEDULE.every
    attack_stop: int | None = _SCHEDULE.stop
    attack_probability: float = _SCHEDULE.probability
    attack_when: str = _SCHEDULE.when
    attack_last: int | None = None
    allow_majority: bool = False
    imports: tuple[str, ...] = ()
    task: str = syntax.written(_RUN.task)
    steps: int = _RUN.steps
    batch_size: int = _RUN.batch_size
    lr: float = _RUN.lr
    momentum: float = _RUN.momentum
    optimiser: str = syntax.written(_RUN.optimiser)
    schedule: str = syntax.written(_RUN.schedule)
    split: str = syntax.written(_RUN.split)
    eval_every: int | None = _RUN.eval_every
    rule: str = syntax.written(_RUN.rule)
    allow_weak: bool = _RUN.allow_weak
    topology: Literal["butterfly", "parameter_server", "ring", "none", "byrdie"] = _RUN.topology
    worker_momentum: float = _RUN.worker_momentum
    tau: float = _RUN.tau
    validators: int = _RUN.validators
    validate_every: int = _RUN.validate_every
    validators_contribute: Contribute = _RUN.validators_contribute
    delta_max: float | None = _RUN.delta_max
    audit_share: float = _RUN.audit_share
    on_ban: Literal["remove", "reform"] = _RUN.on_ban
    probation: int = _RUN.probation
    roster: Literal["closed", "sponsored", "open"] = _RUN.roster
    members: int = _RUN.members
    admit_every: int = _RUN.admit_every
    undo: int | None = None
    recompute_tolerance: float = _RUN.recompute_tolerance
    seed: int = 0
    init_seed: int | None = None
    init: str | None = None
    data_seed: int | None = None
    attack_seed: int | None = None
    protocol_seed: int | None = None
    delivery_bound: float | None = None
    gradient_bound: float | None = None
    measure_bounds: bool = False
    tight_budgets: bool = False
    minimum_rate: float = _RUN.minimum_rate
    wire: Wire = _RUN.wire
    encrypt_bulk: bool = _RUN.encrypt_bulk
    one_port: bool = False
    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    bandwidth: float | None = None
    link: tuple[str, ...] = ()
    scenario: str | None = None
    shaping: Literal["process", "kernel"] = "process"
    checkpoints: bool = True
    durability: Durability = "grouped"
    backend: str = "local"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    arithmetic: Literal["auto", "native", "portable"] = "auto"
    base_port: int = 0
    data_dir: str | None = None
    download: bool = True
    run_dir: str | None = None
    timeout: float | None = None
    monitor: bool = False
    expect: tuple[str, ...] = ()
    allow_honest_removals: bool = False

    @property
    def seeds(self) -> Seeds:
        """The four seeds: those given, the others derived from `seed`.

        The protocol's is derived in a simulation alone: whoever knows it knows every key, and the default `seed` is
        public.
        """
        given = {"init": self.init_seed, "data": self.data_seed, "attack": self.attack_seed}
        shared = {name: _derived(name, self.seed) if own is None else own for name, own in given.items()}
        protocol = self.protocol_seed
        if protocol is None and self.backend == "simulated":
            protocol = _derived("protocol", self.seed)
        return Seeds(**shared, protocol=protocol)

    @property
    def network_seed(self) -> int:
        """The seed of a modelled network's draws. Real nodes find it in their configuration, so theirs is not the
        protocol's, which would tell each the others' keys."""
        if self.backend == "simulated" and (protocol := self.seeds.protocol) is not None:
            return protocol
        return _derived("network", self.seed if self.protocol_seed is None else self.protocol_seed)

    def run_config(self, device: Literal["cpu", "cuda"]) -> RunConfig:
        """What all peers agree on; `undo` of None and `init` depend on the task, see launcher/run/plan.py.

        Raises:
            ConfigError: an option out of range.
        """
        self._check()
        seeds = self.seeds
        *pre, rule = syntax.plugins(self.rule)
        derived: dict[str, Any] = {
            "task": self._task,
            "optimiser": syntax.plugin(self.optimiser),
            "schedule": syntax.plugin(self.schedule),
            "split": syntax.plugin(self.split),
            "rule": rule,
            "pre": tuple(pre),
            "imports": tuple(extensions.label(Path(path)) for path in self.imports),
            "undo": self.undo or 0,
            "init": None,
            "eval_every": _RUN.eval_every if self.eval_every is None else self.eval_every,
            "init_seed": seeds.init,
            "data_seed": seeds.data,
            "delivery_bound_s": (
                messages.delivery_s(max(self.peers, self.members), self.minimum_rate)
                if self.delivery_bound is None
                else self.delivery_bound
            ),
            "gradient_bound_s": _RUN.gradient_bound_s if self.gradient_bound is None else self.gradient_bound,
            "measure_delivery": self.measure_bounds and self.delivery_bound is None,
            "measure_gradient": self.measure_bounds and self.gradient_bound is None,
            "device": device,
        }
        return RunConfig(**{**shared(self, RunConfig.__struct_fields__), **derived})

    @property
    def _task(self) -> Plugin:
        """The task; portable arithmetic is a parameter of those that have it. What `auto` means, the plan finds out."""
        task = syntax.plugin(self.task)
        if self.arithmetic != "portable":
            return task
        return Plugin(task.name, {**task.parameters, "arithmetic": self.arithmetic})

    def roles(self) -> dict[int, Role]:
        """Who attacks and how, by genesis id.

        Raises:
            ConfigError: unknown attack or parameter, or too many attackers.
        """
        schedule = Schedule(
            self.attack_start, self.attack_every, self.attack_stop, self.attack_probability, self.attack_when
        )
        return assign(
            self.attack, self.byzantine, self.role, schedule, peers=self.peers, attack_seed=self.seeds.attack,
            allow_majority=self.allow_majority, steps=self.steps, last=self.attack_last,
        )  # fmt: skip

    def around_attacks(self, roles: Mapping[int, Role]) -> tuple[tuple[int, int], ...]:
        """The steps in which `--eval-every auto` evaluates closely: from just before each start of an attack until most
        attackers are caught (99 of 100 pairs among six within 33 steps), or twenty attacked steps where they are rarer.
        Where nobody attacks, around the first step that could be attacked: a clean run stands beside attacked ones."""
        starts = {(role.schedule.start, role.schedule.every) for role in roles.values()}
        found = sorted(starts or {(self.attack_start, self.attack_every)})
        return tuple((start - CLOSE_STEPS, start + max(_CAUGHT_STEPS, 20 * every)) for start, every in found)

    def _check(self) -> None:
        seeds = {"seed": self.seed, "init-seed": self.init_seed, "data-seed": self.data_seed,
                 "attack-seed": self.attack_seed, "protocol-seed": self.protocol_seed}  # fmt: skip
        for option, number in seeds.items():
            if number is not None and not 0 <= number < 2**63:
                raise ConfigError(f"--{option} {number} must lie between 0 and 2^63 - 1")
        disjoint = max(1, self.peers // 3)
        if self.validators > disjoint:
            raise ConfigError(
                f"--validators {self.validators} of {self.peers} leaves too few contributors; use at most {disjoint}"
            )
        highest = 65536 - 2 * self.peers
        if self.base_port != 0 and not 1024 <= self.base_port <= highest:
            raise ConfigError(f"--base-port {self.base_port} must be 0 or lie between 1024 and {highest}")
        if self.timeout is not None and self.timeout <= 0:
            raise ConfigError(f"--timeout {self.timeout} must be positive; leave it out for no limit")


def node_configs(
    experiment: Experiment, run: RunConfig, roles: Mapping[int, Role], run_id: str, directory: Path,
    data_directory: Path, conditions: Conditions | None = None, members: tuple[Member, ...] = (),
) -> tuple[NodeConfig, ...]:  # fmt: skip
    """One configuration per worker; only an attacker's own holds its role.

    Args:
        run_id: name of the run; every node learns it.
        directory: the run directory; node i lives in `directory/nodes/i`.
        conditions: what the network is to be like, and what happens to workers.
        members: of a simulation; empty: the workers make themselves known to each other.

    Raises:
        ConfigError: peers are to be started again, and checkpoints are switched off.
    """
    fraction = gpu_share(run.peers) if run.device == "cuda" else None
    restarts = conditions is not None and conditions.restarts
    if restarts and not experiment.checkpoints:
        raise ConfigError("--no-checkpoints: the scenario starts peers again, which needs checkpoints; leave it out")
    closely = experiment.around_attacks(roles) if experiment.eval_every is None else ()
    return tuple(
        NodeConfig(
            run_id=run_id, node=node, run=run, members=members, role=roles.get(node),
            secrets_file=str(directory / "nodes" / str(node) / "secrets.json"),
            directory=str(directory / "nodes" / str(node)), data_directory=str(data_directory),
            listen=listen(experiment, node), cuda_memory_fraction=fraction, conditions=conditions,
            shaped=experiment.shaping == "kernel",
            checkpoints=kept(experiment, conditions), durability=experiment.durability,
            imports=tuple(str(directory / IMPORTS / Path(path).name) for path in experiment.imports),
            metrics="127.0.0.1:0" if experiment.monitor else None,
            ceremony=None if members else str(directory / CEREMONY),
            closely=closely,
            applications=str(directory / "nodes" / str(node) / "applications") if run.roster != "closed" else None,
        )
        for node in range(run.peers)
    )  # fmt: skip


def kept(experiment: Experiment, conditions: Conditions | None) -> bool:
    """True if nodes keep on disk what they need to be started again: only local processes can be resumed; elsewhere
    peers are started again only by a scenario."""
    restarts = conditions is not None and conditions.restarts
    return experiment.checkpoints and (experiment.backend == "local" or restarts)


def listen(experiment: Experiment, node: int) -> Endpoint:
    """Where a local node binds: its ports from `base_port` on, or any if that is 0."""
    count = 1 if experiment.one_port else 2
    first = experiment.base_port + count * node
    return Endpoint(*(f"tcp://127.0.0.1:{first + each if experiment.base_port else '*'}" for each in range(count)))


def _derived(name: str, seed: int) -> int:
    """A 32-bit seed for one purpose, independent of the others'."""
    return int.from_bytes(blake3(str(seed).encode(), derive_key_context=f"btard {name} seed").digest(4), "little")


def gpu_share(peers: int) -> float:
    """The part of one GPU's memory that each of `peers` workers may take; a tenth is left to their contexts."""
    return 0.9 / peers
