"""The vectors that a benchmark reduces, as a task: its gradients cost nothing, so that the protocol's share shows."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.training.task import BatchTransform, Layer, lay_out

POOL = 6
"""Vectors in the pool; which one is a peer's gradient in a step follows from its public seed, so that it can be
recomputed."""


class Vectors:
    """A pool of noisy vectors about a common one as long as the clipping radius, half of them outside it.

    Args:
        dimension: D.
        peers: parts per vector.
        tau: clipping radius of a part.
    """

    name = "bench"
    classes = 0
    train_size = test_size = 1

    def __init__(self, dimension: int, peers: int, tau: float) -> None:
        self.dimension = dimension
        self.layout: tuple[Layer, ...] = lay_out([("vector", (dimension,))])
        generator = torch.Generator().manual_seed(dimension)
        common_D = torch.randn(dimension, generator=generator)
        spread = tau * (peers / dimension) ** 0.5
        self.pool = [
            torch.randn(dimension, generator=generator)
            .mul_(spread * (0.8 + 0.4 * place / (POOL - 1)))
            .add_(common_D, alpha=spread)
            .add_(0.0)
            for place in range(POOL)
        ]

    def initial(self, seed: int) -> Tensor:
        """Zeros."""
        return torch.zeros(self.dimension)

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """The pool's vector that `seed` names; shared, and written by nobody."""
        return self.pool[seed[0] % POOL], 0.0

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Nothing to count."""
        return 0
