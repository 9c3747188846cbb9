"""Initial parameters that a user chose: public data, kept under their digest beside the data sets.

Whoever recomputes a gradient of the first steps needs them, so they are found as the data is, and the genesis names
them.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from btard.node.errors import DataError, WireError
from btard.node.protocol.evidence.format import tensor_of
from btard.node.protocol.state.state import parameters_digest
from btard.node.storage.records import read_regular
from btard.node.training.task import LARGEST_ENTRY, BatchTransform, Layer, Resizable, Task

FOLDER = "initial"


def place(data_directory: Path, digest: str) -> Path:
    """Where the parameters of a digest lie."""
    return data_directory / FOLDER / f"{digest}.f32"


def usable(parameters_D: Tensor) -> bool:
    """True for entries that aggregators can compute with, and that no training has blown up."""
    return bool(torch.isfinite(parameters_D).all()) and bool((parameters_D.abs() <= LARGEST_ENTRY).all())


def read(data_directory: Path, digest: str, dimension: int) -> Tensor:
    """The parameters of a digest, float32 `[D]`.

    Raises:
        DataError: they are missing, or other ones.
    """
    path = place(data_directory, digest)
    try:
        parameters_D = tensor_of(read_regular(path.parent, path.name, 4 * dimension))
    except (OSError, DataError, WireError) as error:
        raise DataError(f"the initial parameters {path} cannot be read: {error}; get them from who ran this") from error
    if parameters_D.numel() != dimension or parameters_digest(parameters_D).hex() != digest:
        raise DataError(f"{path} does not hold the {dimension} parameters that its name promises; get them anew")
    return parameters_D


class StartedFrom:
    """A task whose initial parameters are given.

    Args:
        task: the model and its data.
        initial_D: float32 `[D]`.
    """

    def __init__(self, task: Task, initial_D: Tensor) -> None:
        self._task, self._initial_D = task, initial_D
        self.name, self.dimension, self.classes = task.name, task.dimension, task.classes
        self.layout: tuple[Layer, ...] = task.layout
        self.train_size, self.test_size = task.train_size, task.test_size
        self.module = getattr(task, "module", None)
        """A new module with given parameters, where the task has one."""
        self.pieces = getattr(task, "pieces", None)
        self.buffers: frozenset[str] = getattr(task, "buffers", frozenset())

    def resized(self, batch_size: int) -> StartedFrom:
        """The task with batches of another size, where it can have them."""
        smaller = self._task.resized(batch_size) if isinstance(self._task, Resizable) else self._task
        return StartedFrom(smaller, self._initial_D)

    def initial(self, seed: int) -> Tensor:
        """The given parameters, whatever the seed; a fresh tensor."""
        return self._initial_D.clone()

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """As the task's own; see `Task.gradient`."""
        return self._task.gradient(parameters_D, seed, transform)

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """As the task's own; see `Task.evaluate`."""
        return self._task.evaluate(parameters_D, start, stop)
