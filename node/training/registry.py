"""The registry of training tasks: one file per task in `node/training/tasks/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

from btard.node.config import Plugin
from btard.node.plugins.registry import Registry
from btard.node.training.task import Task, TaskContext

TaskFactory: TypeAlias = Callable[..., Task]
"""`(context: TaskContext, *, parameters with defaults) -> Task`."""

TASKS: Registry[TaskFactory] = Registry("task", "btard.node.training.tasks")


def task(
    name: str, *, source: str, examples: tuple[Mapping[str, object], ...] = ()
) -> Callable[[TaskFactory], TaskFactory]:
    """Decorator that registers a task's factory under `name`.

    Raises:
        ConfigError: the name is taken.
    """
    return TASKS.register(name, source=source, takes=("context",), examples=examples)


def build_task(plugin: Plugin, context: TaskContext) -> Task:
    """The task that `plugin` names, ready to compute.

    Raises:
        ConfigError: unknown name or parameter, or a value out of range.
        DataError: its data is missing or corrupt.
    """
    TASKS.check(plugin.name, plugin.parameters)
    return TASKS.get(plugin.name).target(context, **plugin.parameters)
