"""A convex toy without data: fast enough for thousands of simulated steps, noisy like a mini-batch."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.errors import ConfigError
from btard.node.training.registry import task
from btard.node.training.sampling import generator_from, generator_from_int
from btard.node.training.task import BatchTransform, Layer, TaskContext, lay_out, same_data, tame

NEAR = 0.1  # a coordinate counts as correct within this distance of its optimum
ENDLESS = 2**31
"""Training examples: each is drawn afresh, so there are as many as anyone asks for."""


class Quadratic:
    """`f(x) = mean over the batch of 0.5 ||x - target - noise||^2`, with a target fixed by the dimension."""

    name = "quadratic"
    classes = 0

    def __init__(self, dimension: int, noise: float, batch_size: int) -> None:
        self.dimension = dimension
        self.noise = noise
        self.batch_size = batch_size
        self.train_size = ENDLESS
        self.test_size = dimension
        # Two layers, so that per-tensor attacks have something to tell apart.
        split = (dimension + 1) // 2
        self.layout: tuple[Layer, ...] = lay_out((name, (size,)) for name, size in
                                                 (("first", split), ("second", dimension - split)) if size)  # fmt: skip
        self.target_D = torch.randn(dimension, generator=generator_from_int(dimension, "quadratic target"))

    def resized(self, batch_size: int) -> Quadratic:
        """The task with batches of another size."""
        return same_data(self, batch_size)

    def initial(self, seed: int) -> Tensor:
        """Standard normal parameters, float32 `[D]`."""
        return torch.randn(self.dimension, generator=generator_from_int(seed, "quadratic initial"))

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """`x - mean of the batch's noisy targets` and the loss; see `Task.gradient`.

        A `transform` sees the offsets `parameters - noisy targets` `[B, D]` as inputs and the noisy targets as targets.
        """
        generator = generator_from(seed, "quadratic batch")
        noisy_BD = torch.randn(self.batch_size, self.dimension, generator=generator)
        noisy_BD.mul_(self.noise).add_(self.target_D)
        if transform is None:
            offsets_BD = torch.sub(parameters_D.detach(), noisy_BD, out=noisy_BD)
        else:
            offsets_BD, _ = transform(parameters_D.detach() - noisy_BD, noisy_BD)
        loss = 0.5 * offsets_BD.square().sum(dim=1).mean()
        return tame(offsets_BD.mean(dim=0)), float(loss)

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Number of coordinates of `[start, stop)` within 0.1 of the optimum."""
        error = (parameters_D[start:stop] - self.target_D[start:stop]).abs()
        return int((error <= NEAR).sum())


@task(
    "quadratic",
    source="toy problem for tests",
    examples=({}, {"dimension": 1, "noise": 0.0}, {"dimension": 1000, "noise": 1.0}),
)
def quadratic(context: TaskContext, *, dimension: int = 64, noise: float = 0.1) -> Quadratic:
    """A noisy quadratic bowl in `dimension` coordinates; needs no data."""
    if dimension < 1:
        raise ConfigError(f"task 'quadratic': dimension={dimension} is too small; use at least 1")
    if not 0 <= noise < float("inf"):
        raise ConfigError(f"task 'quadratic': noise={noise} must be a finite number of at least 0")
    return Quadratic(dimension, float(noise), context.batch_size)
