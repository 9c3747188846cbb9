"""Everything about a run that is settled before anything starts, and the checks of the place it will run in."""

from __future__ import annotations

import re
import resource
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from btard.launcher.network import conditions as network
from btard.launcher.network import shaping, traffic
from btard.launcher.run import data, expectations, initial_parameters, undo_window
from btard.launcher.run.experiment import BACKENDS, Experiment, kept, listen
from btard.node.config import Endpoint, Plugin, Role, RunConfig
from btard.node.errors import BackendError, ConfigError, DataError
from btard.node.nearest import suggestion
from btard.node.netem.conditions import Conditions
from btard.node.plugins import extensions
from btard.node.storage.disk import steps_of_a_file

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.training.task import Task

Device = Literal["cpu", "cuda"]
SPARE_BYTES = 64 << 20
_PORTABLY = ("mnist_cnn", "mnist_held_out", "transformer_lm")
"""Tasks whose portable gradients are no slower than torch's."""
_RECORD_BYTES = 2048
_FILES = 2
"""Of a ledger, beside those of the window of undo (docs/adr/0070-a-model-every-k-steps.md)."""
_MESSAGES = 2
"""What a step writes of small facts, by its messages' bytes: these, and what a checkpoint adds."""
_DESCRIPTORS, _DESCRIPTORS_PER_PEER = 40, 6
"""A worker's open files and sockets: 409 of 64 peers (docs/scale.md)."""
_WORKER_BYTES, _VECTORS = 20_000_000, 4
"""What a worker holds alone at least: without a model, and vectors of the model's size."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A validated run.

    Args:
        dimension: entries of the gradient; None while the task's data is missing.
        optimiser_entries: of its state; None as well.
        conditions: what the network is to be like, and what happens to workers; None: nothing.
        warnings: what a scenario means for the run.
        initial_D: what the file of `--init` holds; None: no such file, or the task's data is missing.
        undo: what `--undo auto` came to, and why; empty where the user chose.
    """

    experiment: Experiment
    run: RunConfig
    roles: Mapping[int, Role]
    data_directory: Path
    dimension: int | None
    optimiser_entries: int | None = None
    conditions: Conditions | None = None
    warnings: tuple[str, ...] = ()
    undo: str = ""
    initial_D: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def listens(self) -> tuple[Endpoint, ...]:
        """Where each node binds (port `*`: chosen by the system)."""
        return tuple(listen(self.experiment, node) for node in range(self.run.peers))

    @property
    def bytes_expected(self) -> int | None:
        """Bulk bytes of the whole run if nobody is banned."""
        if self.dimension is None:
            return None
        idle = self.run.validate_every == 1 and not self.run.everyone_contributes
        validators = self.run.validators if idle else 0
        return traffic.run_bytes(self.dimension, self.run.peers, self.run.steps, validators, self.run.entry_bytes)


def quick_check(experiment: Experiment) -> None:
    """Refuse what can be refused without loading torch.

    Raises:
        ConfigError: an option out of range, an unknown backend, or an expectation that cannot be read.
    """
    experiment.run_config("cpu")
    names = [Path(path).name for path in experiment.imports]
    if len(set(names)) < len(names):
        raise ConfigError(f"--import names {', '.join(names)}: two files of one name; rename one of them")
    if experiment.backend not in BACKENDS:
        raise ConfigError(f"unknown backend {experiment.backend!r}; {suggestion(experiment.backend, BACKENDS)}")
    if experiment.monitor and experiment.backend not in ("local", "compose"):
        raise ConfigError(
            f"--monitor watches processes and containers; --backend {experiment.backend} has none: leave it out"
        )
    if experiment.roster != "closed" and experiment.backend != "local":
        raise ConfigError(
            f"--roster {experiment.roster}: nobody reaches the peers of --backend {experiment.backend}; use --backend "
            "local, or peers of several owners (`btard-node`)"
        )
    if experiment.imports and experiment.backend == "compose":
        raise ConfigError(
            f"--import {experiment.imports[0]}: the image of --backend compose holds no files of yours; "
            "install a package in it, or use --backend local"
        )
    if experiment.init is not None and experiment.backend == "compose":
        raise ConfigError(
            f"--init {experiment.init}: the containers of --backend compose hold no files of yours; use --backend local"
        )
    if experiment.topology != "butterfly" and experiment.backend != "simulated":
        raise ConfigError(
            f"--topology {experiment.topology} is a comparison run, which takes one process; add --backend simulated"
        )
    for text in experiment.expect:
        expectations.parse(text)
    shaping.check(experiment)
    if network.of(experiment) is not None and experiment.topology != "butterfly":
        raise ConfigError(
            f"--topology {experiment.topology} has no links to model; leave out what concerns the network"
        )


def make(experiment: Experiment) -> Plan:
    """Validate everything that a user may have got wrong; starts and writes nothing.

    Raises:
        ConfigError: an option, name or parameter that cannot be run, or an own attack, rule or task that would fail.
        BackendError: no such device here, or no compiler for portable arithmetic.
    """
    quick_check(experiment)
    extensions.load([Path(path) for path in experiment.imports])
    run, warnings = _settled(experiment)
    roles = experiment.roles()
    where = data.directory(experiment.data_dir)
    from btard.launcher.run import plugin_trial
    from btard.node.adversary.registry import check_topology
    from btard.node.aggregation.factory import check_names
    from btard.node.aggregation.resilience import rule_for
    from btard.node.baselines import topologies
    from btard.node.training.registry import OPTIMISERS, SESSION, SPLITS, TASKS, check_task
    from btard.node.training.schedules import learning_rate

    check_names(run.rule, run.pre)
    served = run.task.name == SESSION  # its program computes it, and sees its own errors
    if experiment.arithmetic == "portable" and (served or "arithmetic" not in TASKS.get(run.task.name).parameters):
        having = " or ".join(each.name for each in TASKS if "arithmetic" in each.parameters)
        raise ConfigError(
            f"task {run.task.name!r} has no portable arithmetic; use --arithmetic native, or --task {having}"
        )
    check_task(run.task)
    for registry, plugin in ((OPTIMISERS, run.optimiser), (SPLITS, run.split)):
        registry.check(plugin.name, plugin.parameters)
    learning_rate(run)
    if not served:
        plugin_trial.check(run, roles, experiment.imports, where)
    rule_for(run, len(roles))
    topologies.check(run)
    for role in roles.values():
        check_topology(role, run.topology)
    conditions = network.of(experiment)
    _check_delay(conditions, run)
    task = _task(run, where, roles)
    dimension, state, entries = _sizes(run, task)
    initial_D, said = None, ""
    if experiment.init is not None and task is not None:
        from btard.node.protocol.state.state import parameters_digest

        initial_D = initial_parameters.load(Path(experiment.init), task.layout, getattr(task, "buffers", frozenset()))
        run = msgspec.structs.replace(run, init=parameters_digest(initial_D).hex())
    if foreign := sorted(getattr(task, "foreign", ())):
        note = (
            f"task {run.task.name!r}: {', '.join(foreign)} have no portable form; another processor may find other bits"
        )
        warnings = (*warnings, note)
    if experiment.undo is None:
        window = undo_window.automatic(experiment, run, entries)
        run, said = msgspec.structs.replace(run, undo=window.steps), window.why
    return Plan(experiment, run, roles, where, dimension, state, conditions, warnings, said, initial_D)


def _settled(experiment: Experiment) -> tuple[RunConfig, tuple[str, ...]]:
    """The run on its device and in its arithmetic, and what is to be said of it.

    Raises:
        BackendError: no such device here.
    """
    from btard.node.kernels import portable

    on_cpu = experiment.arithmetic == "portable" and experiment.device == "auto"
    run, warnings = (
        experiment.run_config("cpu" if on_cpu else device(experiment.device)),
        network.scenario(experiment).warnings,
    )
    if experiment.arithmetic != "auto" or run.device != "cpu" or (chosen := portably(run)) == run:
        return run, warnings
    try:
        portable.library()
    except BackendError:
        return run, (
            *warnings,
            "no C compiler here (cc, gcc or clang): gradients have the bits of torch on this processor",
        )
    return chosen, warnings


def portably(run: RunConfig) -> RunConfig:
    """The same run in portable arithmetic, where that is as fast and the task does not say what it computes in."""
    name, given = run.task.name, run.task.parameters
    if "arithmetic" in given or name not in _PORTABLY:
        return run
    return msgspec.structs.replace(run, task=Plugin(name, {**given, "arithmetic": "portable"}))


def _check_delay(asked: Conditions | None, run: RunConfig) -> None:
    """Refuse links on which messages cannot be handled within D, which counts from signing to handling.

    Raises:
        ConfigError: the network alone takes all of it.
    """
    delay_s = network.always_s(asked) if asked is not None else 0.0
    if delay_s >= run.delivery_bound_s:
        raise ConfigError(
            f"--delay, --jitter or --link let a message take {delay_s:g} s, and --delivery-bound "
            f"{run.delivery_bound_s:g} s is to cover that and the time until it is handled; raise --delivery-bound"
        )


def again(experiment: Experiment, run: RunConfig, roles: Mapping[int, Role], where: Path) -> Plan:
    """The plan of a run that was settled elsewhere, with the data as it lies here."""
    task = _task(run, where, roles)
    dimension, state, entries = _sizes(run, task)
    said = undo_window.automatic(experiment, run, entries).why if experiment.undo is None else ""
    return Plan(experiment, run, roles, where, dimension, state, network.of(experiment), undo=said)


def _sizes(run: RunConfig, task: Task | None) -> tuple[int | None, int | None, int | None]:
    """Entries of the gradient, of the optimiser's state, and of all that a step leaves of both and of the parameters.

    Raises:
        ConfigError: an optimiser that the run or the task is no match for.
    """
    from btard.node.build import optimiser_of

    if task is None:
        return None, None, None
    state = optimiser_of(run, task.dimension, task.layout).initial_state(task.dimension).numel()
    return task.dimension, state, 2 * task.dimension + state


def device(choice: str) -> Device:
    """What computes gradients: the choice, or for `auto` the GPU if there is one.

    Raises:
        BackendError: cuda is asked for and torch finds no GPU.
    """
    if choice == "cpu" or (choice == "auto" and not driver_present()):
        return "cpu"
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if choice == "cuda":
        raise BackendError("--device cuda: torch finds no usable GPU here; use --device cpu")
    return "cpu"


def preflight(plan: Plan) -> None:
    """Check the place: ports, file descriptors, memory and disk.

    Raises:
        BackendError: a port is in use, or one of the others does not suffice for the run.
    """
    if plan.experiment.backend == "local":
        _check_processes(plan)
    for node, endpoint in enumerate(plan.listens):
        for address in endpoint.urls:
            _check_port(address, node, plan.experiment.base_port)
    target = Path(plan.experiment.run_dir or "runs").absolute()
    free = free_bytes(target)
    need = bytes_on_disk(plan)
    if free < need:
        raise BackendError(
            f"the disk of {target} has {traffic.human(free)} free, the run needs {traffic.human(need)}; "
            "free some space, or use another --run-dir"
        )


def _check_processes(plan: Plan) -> None:
    """What so many workers need of one machine, by docs/scale.md; Linux says what there is.

    Raises:
        BackendError: it has less.
    """
    peers, instead = plan.run.peers, "use fewer --peers, or --backend simulated"
    most, need = resource.getrlimit(resource.RLIMIT_NOFILE)[1], _DESCRIPTORS + _DESCRIPTORS_PER_PEER * peers
    if resource.RLIM_INFINITY != most < need:
        raise BackendError(
            f"each of {peers} workers opens up to {need} files and sockets, and may open {most} (ulimit -Hn); raise "
            f"that, {instead}"
        )
    free, need = available_bytes(), peers * (_WORKER_BYTES + traffic.FLOAT_BYTES * _VECTORS * (plan.dimension or 0))
    if free is not None and free < need:
        raise BackendError(
            f"{peers} workers hold at least {traffic.human(need)} of memory, and {traffic.human(free)} are free; "
            f"{instead}"
        )


def available_bytes() -> int | None:
    """Memory that new processes can take without swapping, None where the system does not say."""
    try:
        found = re.search(r"^MemAvailable: +(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    except OSError:
        return None
    return 1024 * int(found[1]) if found else None


def bytes_on_disk(plan: Plan) -> int:
    """An upper estimate of what a run keeps: journals twice (nodes and collected), parameters, ledgers of the newest
    steps and of the window of undo, and a reserve."""
    peers, dimension = plan.run.peers, plan.dimension or 0
    journals = 2 * peers * (plan.run.steps + 1) * _RECORD_BYTES
    checkpoints = 0
    if kept(plan.experiment, plan.conditions):
        model_bytes = traffic.FLOAT_BYTES * (dimension + (plan.optimiser_entries or 0))
        step_bytes = traffic.FLOAT_BYTES * dimension + _MESSAGES * undo_window.MESSAGE_BYTES * peers**2
        file = steps_of_a_file(model_bytes, step_bytes)
        steps = min(plan.run.undo + _FILES * file, plan.run.steps + 1)
        checkpoints = peers * ((steps // file + 1) * model_bytes + steps * step_bytes)
    return SPARE_BYTES + journals + 8 * peers * dimension + checkpoints


def free_bytes(path: Path) -> int:
    """Free space where `path` is or would be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _task(run: RunConfig, where: Path, roles: Mapping[int, Role]) -> Task | None:
    """The task, None while its data is missing; also refuses attacks on labels of a task that has none."""
    from btard.node.adversary.registry import ATTACKS
    from btard.node.training import splits
    from btard.node.training.registry import build_task
    from btard.node.training.task import TaskContext

    try:
        task = build_task(run.task, TaskContext(where, run.batch_size, deal=splits.deal_of(run)))
    except DataError:
        return None
    if run.batch_size > task.train_size:
        raise ConfigError(
            f"--batch-size {run.batch_size} is more than the {task.train_size} training examples of task "
            f"{run.task.name!r}; use at most {task.train_size}"
        )
    if run.peers > task.dimension:
        raise ConfigError(f"--peers {run.peers} is more than the {task.dimension} entries of task {run.task.name!r}")
    for attack in (attack for role in roles.values() for attack in role.attacks):
        if ATTACKS.get(attack.name).facts.get("needs_classes") and task.classes < 2:
            raise ConfigError(f"attack {attack.name!r} needs a task with labels; use --task mnist_cnn")
    return task


def driver_present() -> bool:
    """True if this machine has a driver for NVIDIA's GPUs; torch need not be asked, which takes seconds."""
    return any(Path(path).exists() for path in ("/dev/nvidiactl", "/dev/dxg"))


def bind_problem(port: int) -> str | None:
    """Why a local port cannot be bound; None if it can."""
    with socket.socket() as probe:
        # As ZeroMQ binds: a port whose last connection is only timing out is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None


def _check_port(address: str, node: int, base_port: int) -> None:
    port = address.rpartition(":")[2]
    problem = None if port == "*" else bind_problem(int(port))
    if problem is not None:
        raise BackendError(
            f"port {port} of node {node} cannot be bound ({problem}); use another --base-port than {base_port}, "
            "or 0 to let the system choose"
        )
