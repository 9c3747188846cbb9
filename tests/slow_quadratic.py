"""A task for tests, loaded as a user's own file: a gradient that takes its time, and no processor."""

from __future__ import annotations

import time

from torch import Tensor

from btard.node.training.registry import task
from btard.node.training.task import BatchTransform, TaskContext
from btard.node.training.tasks.quadratic import Quadratic


class SlowQuadratic(Quadratic):
    """`Quadratic`, each gradient of which takes `seconds`."""

    name = "slow_quadratic"

    def __init__(self, seconds: float, batch_size: int) -> None:
        super().__init__(24, 0.1, batch_size)
        self._seconds = seconds

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """The same as that of `Quadratic`, later."""
        time.sleep(self._seconds)
        return super().gradient(parameters_D, seed, transform)


@task("slow_quadratic", source="toy problem for tests")
def slow_quadratic(context: TaskContext, *, seconds: float = 3.0) -> SlowQuadratic:
    """A noisy quadratic bowl on a slow machine."""
    return SlowQuadratic(float(seconds), context.batch_size)
