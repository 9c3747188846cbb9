"""What a training task offers: the contract between the tasks and everything that trains or checks them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

import torch
from torch import Tensor

from btard.node.training.sampling import Shards

T = TypeVar("T")

Deal: TypeAlias = Callable[[Tensor], Shards]
"""Who draws from which of the training examples, from their labels int64 `[train_size]`."""

Rate: TypeAlias = Callable[[int], float]
"""Learning rate of a step."""

BatchTransform: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""An attack on the data: `(inputs_B, targets_B) -> (inputs_B, targets_B)`, new tensors of the same shapes."""


@dataclass(frozen=True, slots=True)
class TaskContext:
    """Where and how a task computes.

    Args:
        data_directory: folder under which prepared data sets lie.
        batch_size: examples in one worker's mini-batch.
        device: "cpu" or "cuda"; vectors that a task takes and returns are on the CPU either way.
        deal: how the examples are split among the peers (`--split`); None: everybody draws from all.
    """

    data_directory: Path
    batch_size: int
    device: str = "cpu"
    deal: Deal | None = None

    def shards(self, labels: Tensor) -> Shards:
        """What a task with labels draws its batches from, and keeps as `shards`.

        Args:
            labels: of the training examples, `[train_size]`.
        """
        return Shards(len(labels)) if self.deal is None else self.deal(labels)


@dataclass(frozen=True, slots=True)
class Layer:
    """One tensor of the model inside the flat vector: elements `[start, stop)`, reshaped to `shape`."""

    name: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def view(self, vector_D: Tensor) -> Tensor:
        """This layer's slice of a flat `[D]` vector, as a view of shape `shape`."""
        return vector_D[self.start : self.stop].view(self.shape)


def lay_out(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> tuple[Layer, ...]:
    """Place named tensors one after the other in a flat vector."""
    layers: list[Layer] = []
    start = 0
    for name, shape in shapes:
        stop = start + prod(shape)
        layers.append(Layer(name, shape, start, stop))
        start = stop
    return tuple(layers)


def state_dict(layout: Iterable[Layer], parameters_D: Tensor) -> dict[str, Tensor]:
    """A flat vector as copies of its named tensors, in their order."""
    return {layer.name: layer.view(parameters_D).clone() for layer in layout}


LARGEST_ENTRY = 2.0**40
"""What an aggregator can still compute with (node/protocol/attempt/attempt.py refuses more)."""


def tame(gradient_D: Tensor) -> Tensor:
    """A gradient as it is committed to, in place: NaN becomes 0, huge entries the largest allowed, -0 becomes +0.

    In a network that an undefended rule has blown up, the true gradient is not finite; without this an honest peer
    could not be told from one that commits to rubbish. Digests cover bytes, so equal numbers must have equal bytes.
    """
    return (
        torch.nan_to_num_(gradient_D, 0.0, LARGEST_ENTRY, -LARGEST_ENTRY)
        .clamp_(-LARGEST_ENTRY, LARGEST_ENTRY)
        .add_(0.0)
    )


class Task(Protocol):
    """A model, its data and its loss, over flat float32 vectors on the CPU."""

    @property
    def name(self) -> str:
        """What a user types."""

    @property
    def dimension(self) -> int:
        """D, the length of the parameter vector."""

    @property
    def layout(self) -> tuple[Layer, ...]:
        """The model's tensors, in order, without gaps."""

    @property
    def classes(self) -> int:
        """Number of target classes (0: the targets are no labels)."""

    @property
    def train_size(self) -> int:
        """Number of training examples."""

    @property
    def test_size(self) -> int:
        """Number of test items that `evaluate` can count."""

    def initial(self, seed: int) -> Tensor:
        """Initial parameters, float32 `[D]`, drawn from `seed` alone."""

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """Mini-batch gradient and loss: a pure function of `(parameters_D, seed)`, bit for bit.

        Args:
            parameters_D: float32 `[D]`, read only.
            seed: 32 bytes (xi), with a split and the peer's id behind them; all that is random comes from it.
            transform: replaces the batch before it is used (attacks on the data).

        Returns:
            A fresh float32 `[D]` CPU tensor without negative zeros, and the mean loss over the batch.
        """

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Number of correct predictions on the test items `[start, stop)`."""


EVALUATED = 256
"""Test items at once, where a task does not cut an evaluation itself."""


def pieces(task: Task, parameters_D: Tensor, start: int, stop: int) -> list[Callable[[], int]]:
    """`task.evaluate` in pieces, to be called in this order; its result is the sum of theirs.

    A gradient that is wanted meanwhile waits for the piece under way. How long test items take only the task knows: its
    own method `pieces`, if it has one, cuts an evaluation so that none takes longer than a gradient.
    """
    own = getattr(task, "pieces", None)
    if own is not None:
        found: list[Callable[[], int]] = own(parameters_D, start, stop)
        return found
    edges = range(start, stop, EVALUATED)
    return [partial(task.evaluate, parameters_D, first, min(first + EVALUATED, stop)) for first in edges]


@runtime_checkable
class Resizable(Task, Protocol):
    """A task whose gradients need no more of it than `batch_size` to have smaller batches."""

    def resized(self, batch_size: int) -> Task:
        """The task, on the same data, with batches of another size; see `same_data`."""


def same_data(task: T, batch_size: int) -> T:
    """A shallow copy of a task that reads its attribute `batch_size` in each gradient, with another one."""
    made = copy(task)
    vars(made)["batch_size"] = batch_size
    return made
