"""Adam, AdamW and LAMB as pure functions of flat vectors.

State: the two moments `[D]` each, then the number of updates that went into them. That number is no step of the
protocol: an undo takes updates back, and a step without contributors has none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node.errors import ConfigError
from btard.node.kernels import roots
from btard.node.training.registry import UpdateContext, optimiser
from btard.node.training.task import Layer, Rate


@dataclass(frozen=True, slots=True)
class Adam:
    """Elementwise float32, each operation rounded by itself, so equal inputs give equal bits on every processor.

    Args:
        rate: learning rate of a step.
        beta1, beta2: decay of the first and of the second moment.
        eps: added to the root of the second moment.
        weight_decay: of the parameters.
        decoupled: the decay is taken from the parameters directly (AdamW), not added to the gradient.
        layers: what LAMB scales by itself; empty: nothing.
    """

    rate: Rate
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    decoupled: bool = False
    layers: tuple[Layer, ...] = ()

    def initial_state(self, dimension: int) -> Tensor:
        """Both moments and the count before the first update: zeros, float32 `[2 D + 1]`."""
        return torch.zeros(2 * dimension + 1, dtype=torch.float32)

    def apply(
        self, parameters_D: Tensor, state_S: Tensor, gradient: Sequence[Tensor], step: int
    ) -> tuple[Tensor, Tensor]:
        """One update.

        Args:
            parameters_D: float32 `[D]`, left as it is.
            state_S: float32 `[2 D + 1]`, left as it is.
            gradient: g in parts, float32 `[P]` each, `[D]` together.
            step: sets the rate.

        Returns:
            New parameters and new state. Source: Kingma and Ba 2015, algorithm 1; Loshchilov and Hutter 2019,
            algorithm 2; You et al. 2020, algorithm 2.
        """
        # Out-of-place products and sums: `lerp`, `addcmul` and `alpha=` may be contracted to an FMA on some CPUs.
        dimension, rate = parameters_D.numel(), self.rate(step)
        gradient_D = torch.cat(list(gradient))
        if self.weight_decay and not self.decoupled and not self.layers:
            gradient_D = gradient_D.add_(parameters_D * self.weight_decay)
        state_next_S = torch.empty_like(state_S)
        first_D, second_D = state_next_S[:dimension], state_next_S[dimension : 2 * dimension]
        torch.mul(state_S[:dimension], self.beta1, out=first_D)
        first_D.add_(gradient_D * (1 - self.beta1))
        torch.mul(state_S[dimension : 2 * dimension], self.beta2, out=second_D)
        second_D.add_(gradient_D.mul_(gradient_D).mul_(1 - self.beta2))
        count = int(state_S[-1]) + 1
        state_next_S[-1] = count
        scale_D = roots(second_D).div_(math.sqrt(1 - self.beta2**count)).add_(self.eps)
        direction_D = first_D.mul(1 / (1 - self.beta1**count)).div_(scale_D)
        if self.layers:
            self._scale(parameters_D, direction_D)
        elif self.weight_decay and self.decoupled:
            parameters_D = parameters_D * (1 - rate * self.weight_decay)
        return parameters_D - direction_D.mul_(rate), state_next_S

    def _scale(self, parameters_D: Tensor, direction_D: Tensor) -> None:
        """LAMB's direction in place: with decay, each layer as long as its parameters (1 where one of both is 0)."""
        direction_D.add_(parameters_D * self.weight_decay)
        for layer in self.layers:
            here = slice(layer.start, layer.stop)
            norm, length = _norm(parameters_D[here]), _norm(direction_D[here])
            if norm > 0 and length > 0:
                direction_D[here] *= norm / length


def _norm(values_P: Tensor) -> float:
    return math.sqrt(float(values_P.double().square_().sum()))


def _made(context: UpdateContext, name: str, decoupled: bool, layers: tuple[Layer, ...], **given: float) -> Adam:
    for key, value in given.items():
        high = 1 if key.startswith("beta") else math.inf
        if not 0 <= value < high:
            raise ConfigError(f"--optimiser {name}: {key}={value} must be at least 0 and below {high}")
    return Adam(context.rate, decoupled=decoupled, layers=layers, **given)


@optimiser("adam", source="Kingma and Ba 2015", portable=True)
def adam(
    context: UpdateContext, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.0
) -> Adam:
    """Adam; its weight decay is added to the gradient."""
    return _made(context, "adam", False, (), beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)


@optimiser("adamw", source="Loshchilov and Hutter 2019", portable=True)
def adamw(
    context: UpdateContext, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8, weight_decay: float = 0.01
) -> Adam:
    """Adam with decoupled weight decay."""
    return _made(context, "adamw", True, (), beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)


@optimiser("lamb", source="You et al. 2020")
def lamb(
    context: UpdateContext, *, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-6, weight_decay: float = 0.01
) -> Adam:
    """Adam whose step in each layer is as long as the layer's parameters; the task says its layers."""
    ends = [0, *(layer.stop for layer in context.layout)]
    if [layer.start for layer in context.layout] != ends[:-1] or ends[-1] != context.dimension:
        raise ConfigError("--optimiser lamb scales each layer, and the task's `layout` does not say them; use adamw")
    return _made(context, "lamb", True, context.layout, beta1=beta1, beta2=beta2, eps=eps, weight_decay=weight_decay)
