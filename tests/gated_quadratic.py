"""A task for tests, loaded as a user's own file: its gradients wait while a file is there."""

from __future__ import annotations

import time
from pathlib import Path

from torch import Tensor

from btard.node.training.registry import task
from btard.node.training.task import BatchTransform, TaskContext
from btard.node.training.tasks.quadratic import Quadratic


class GatedQuadratic(Quadratic):
    """`Quadratic`, whose gradients wait for `gate` to go."""

    name = "gated_quadratic"

    def __init__(self, gate: Path, batch_size: int) -> None:
        super().__init__(64, 0.1, batch_size)
        self._gate = gate

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """The same as that of `Quadratic`."""
        while self._gate.exists():
            time.sleep(0.02)
        return super().gradient(parameters_D, seed, transform)


@task("gated_quadratic", source="toy problem for tests")
def gated_quadratic(context: TaskContext, *, gate: str = "/nowhere") -> GatedQuadratic:
    """A noisy quadratic bowl that waits."""
    return GatedQuadratic(Path(gate), context.batch_size)
