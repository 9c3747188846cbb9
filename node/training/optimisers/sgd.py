"""SGD with Nesterov momentum, as a pure function of flat vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node import kernels
from btard.node.training.registry import UpdateContext, optimiser
from btard.node.training.task import Rate


@dataclass(frozen=True, slots=True)
class NesterovSgd:
    """The report's optimiser; its arithmetic is elementwise float32 and unfused, so equal inputs give equal bits.

    Args:
        rate: learning rate of a step.
        momentum: Nesterov momentum, dampening 0.
    """

    rate: Rate
    momentum: float

    def initial_state(self, dimension: int) -> Tensor:
        """The momentum buffer before the first step: zeros, float32 `[D]`."""
        return torch.zeros(dimension, dtype=torch.float32)

    def apply(
        self, parameters_D: Tensor, state_D: Tensor, gradient: Sequence[Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """One update: `u' = momentum u + g`, `x' = x - lr_t (g + momentum u')`.

        Args:
            parameters_D: float32 `[D]`, left as it is (the protocol keeps it for two steps).
            state_D: float32 `[D]`, left as it is.
            gradient: g in parts, float32 `[P]` each, `[D]` together.
            step: t, which sets the rate.

        Returns:
            New parameters and new state. Source: `torch.optim.SGD(nesterov=True)`; Sutskever et al. 2013.
        """
        compiled = kernels.updated(parameters_D, state_D, gradient, self.momentum, self.rate(step))
        return (
            compiled if compiled is not None else self.by_torch(parameters_D, state_D, torch.cat(list(gradient)), step)
        )

    def by_torch(self, parameters_D: Tensor, state_D: Tensor, gradient_D: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """`apply` where there is no compiled kernel, and the oracle of the one there is."""
        # Products are rounded before they are added: `alpha=` arguments may be contracted to an FMA on some CPUs.
        state_next_D = (state_D * self.momentum).add_(gradient_D)
        direction_D = (state_next_D * self.momentum).add_(gradient_D)
        return parameters_D - direction_D.mul_(self.rate(step)), state_next_D


@optimiser("sgd", source="Sutskever et al. 2013; the report", portable=True)
def sgd(context: UpdateContext) -> NesterovSgd:
    """SGD with Nesterov momentum, which is --momentum."""
    return NesterovSgd(context.rate, context.momentum)
