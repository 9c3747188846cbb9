"""The registries of tasks and optimisers, one file each in `tasks/` and `optimisers/`, of schedules and of splits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from torch import Tensor

from btard.node.config import Plugin
from btard.node.errors import ConfigError, DataError
from btard.node.plugins.registry import Registry
from btard.node.protocol.settings import Optimiser
from btard.node.training.task import Layer, Rate, Task, TaskContext


@dataclass(frozen=True, slots=True)
class UpdateContext:
    """What an optimiser is built for.

    Args:
        rate: learning rate of a step.
        dimension: D.
        layout: the model's tensors, `[0, D)` without gaps.
        momentum: `--momentum`.
    """

    rate: Rate
    dimension: int
    layout: tuple[Layer, ...]
    momentum: float


TaskFactory: TypeAlias = Callable[..., Task]
"""`(context: TaskContext, *, parameters with defaults) -> Task`."""

OptimiserFactory: TypeAlias = Callable[..., Optimiser]
"""`(context: UpdateContext, *, parameters with defaults) -> Optimiser`."""

ScheduleFunction: TypeAlias = Callable[..., float]
"""`(step: int, total_steps: int, *, parameters with defaults) -> factor of the base rate`."""

SplitFunction: TypeAlias = Callable[..., list[Tensor]]
"""`(labels, peers: int, seed: int, *, parameters with defaults) -> places of each peer's examples`."""

TASKS: Registry[TaskFactory] = Registry("task", "btard.node.training.tasks")
OPTIMISERS: Registry[OptimiserFactory] = Registry("optimiser", "btard.node.training.optimisers")
SCHEDULES: Registry[ScheduleFunction] = Registry("schedule", "btard.node.training.schedules", "optimisers")
SPLITS: Registry[SplitFunction] = Registry("split", "btard.node.training.splits", "tasks")


def task(
    name: str, *, source: str, examples: tuple[Mapping[str, object], ...] = ()
) -> Callable[[TaskFactory], TaskFactory]:
    """Decorator that registers a task's factory under `name`.

    Raises:
        ConfigError: the name is taken, or it is the sessions'.
    """
    if name == SESSION:
        raise ConfigError(f"task {name!r}: btard.Session has that name; give it another one")
    return TASKS.register(name, source=source, takes=("context",), examples=examples)


def optimiser(name: str, *, source: str, portable: bool = False) -> Callable[[OptimiserFactory], OptimiserFactory]:
    """Decorator that registers an optimiser's factory under `name`.

    Args:
        portable: equal inputs give equal bits on every processor.

    Raises:
        ConfigError: the name is taken.
    """
    return OPTIMISERS.register(name, source=source, takes=("context",), portable=portable)


def schedule(name: str, *, source: str) -> Callable[[ScheduleFunction], ScheduleFunction]:
    """Decorator that registers a learning-rate schedule under `name`.

    Raises:
        ConfigError: the name is taken.
    """
    return SCHEDULES.register(name, source=source, takes=("step", "total"))


def split(name: str, *, source: str) -> Callable[[SplitFunction], SplitFunction]:
    """Decorator that registers a split of the training examples under `name`.

    Raises:
        ConfigError: the name is taken.
    """
    return SPLITS.register(name, source=source, takes=("labels", "peers", "seed"))


SESSION = "session"
"""Name of the tasks in SERVED."""
SERVED: dict[str, Task] = {}
"""Tasks whose gradients a program of this process computes in a loop of its own, by the digest of their initial
parameters (`btard.Session`). No file defines them, so they are in no catalogue."""


def check_task(plugin: Plugin) -> None:
    """Refuse an unknown task, or parameters that it does not take.

    Raises:
        ConfigError: which.
    """
    if plugin.name != SESSION:
        TASKS.check(plugin.name, plugin.parameters)


def build_task(plugin: Plugin, context: TaskContext) -> Task:
    """The task that `plugin` names, ready to compute.

    Raises:
        ConfigError: unknown name or parameter, a value out of range, or no labels that a split could go by.
        DataError: its data is missing or corrupt, or it is another program's session.
    """
    check_task(plugin)
    if plugin.name == SESSION:
        served = SERVED.get(str(plugin.parameters.get("initial")))
        if served is None:
            raise DataError("its gradients are computed by the program that ran the session, which this one is not")
        made = served
    else:
        made = TASKS.get(plugin.name).target(context, **plugin.parameters)
    if context.deal is not None and not hasattr(made, "shards"):
        raise ConfigError(f"task {plugin.name!r} has no labels to split its examples by; use --split iid")
    return made
