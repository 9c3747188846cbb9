"""node/training/registry.py: tasks by name, and errors that tell the user what to type."""

from __future__ import annotations

from pathlib import Path

import pytest

from btard.node.config import Plugin
from btard.node.errors import ConfigError, DataError
from btard.node.training.registry import TASKS, build_task, task
from btard.node.training.task import TaskContext


def test_lists_the_tasks_of_its_folder() -> None:
    assert {"mnist_cnn", "quadratic"} <= {entry.name for entry in TASKS}
    assert all(entry.summary and entry.source for entry in TASKS)


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Plugin("mnist_cn"), "did you mean 'mnist_cnn'"),
        (Plugin("quadratic", {"dimensions": 3}), "did you mean 'dimension'"),
        (Plugin("quadratic", {"dimension": "three"}), "must be a int"),
        (Plugin("quadratic", {"dimension": 0}), "use at least 1"),
        (Plugin("quadratic", {"noise": -1.0}), "at least 0"),
        (Plugin("quadratic", {"noise": float("nan")}), "at least 0"),
    ],
    ids=lambda value: value.name + str(value.parameters) if isinstance(value, Plugin) else None,
)
def test_refuses_what_cannot_be_built(plugin: Plugin, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_task(plugin, TaskContext(Path("nowhere"), 8))


def test_missing_data_names_the_file_and_the_command(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*btard-launch data mnist"):
        build_task(Plugin("mnist_cnn"), TaskContext(tmp_path, 8))


def test_the_name_of_sessions_is_taken() -> None:
    with pytest.raises(ConfigError, match=r"task 'session': btard\.Session has that name; give it another one"):
        task("session", source="own")
