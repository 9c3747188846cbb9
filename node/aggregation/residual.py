"""The residual `sum_i w_i (x_i - v)` in direct float64: how a judge measures an aggregate."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from btard.node.aggregation.rows import blocks


def distances(inputs_NP: Tensor, value_P: Tensor) -> Tensor:
    """Distance of every row to `value_P`.

    Args:
        inputs_NP: float32 `[N, P]`.
        value_P: float32 or float64 `[P]`.

    Returns:
        float64 `[N]`.
    """
    rows, columns = inputs_NP.shape
    squares_N = torch.zeros(rows, dtype=torch.float64)
    for block in blocks(rows, columns):
        squares_N += torch.linalg.vector_norm(inputs_NP[:, block].double() - value_P[block], dim=1).square_()
    return squares_N.sqrt_()


def clip_weights(distances_N: Tensor, radius: float) -> Tensor:
    """`min(1, radius / distance)`, exactly 1 within the radius and for an infinite one.

    Args:
        distances_N: float64 `[N]`.
        radius: clipping radius, an L2 norm, positive; infinity for rules that do not clip.

    Returns:
        float64 `[N]`, in (0, 1].
    """
    if math.isinf(radius):
        return torch.ones_like(distances_N)
    # Torch divides a number by a tensor in two roundings, and 49 / 49 is not 1 then.
    return torch.full_like(distances_N, radius) / distances_N.clamp(min=radius)


def residual(inputs_NP: Tensor, value_P: Tensor, radius: float) -> tuple[float, list[float]]:
    """Norm of `sum_i w_i (x_i - v)` with `w_i = min(1, radius / ||x_i - v||)`, in float64 throughout.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        value_P: float32 `[P]`, finite.
        radius: clipping radius, an L2 norm; infinity for rules that do not clip.

    Returns:
        The norm of the residual and the distances `||x_i - v||`.

    Source: Gorbunov et al. 2021 (arXiv 2106.11257), CenteredClip's fixed point.
    """
    rows, columns = inputs_NP.shape
    distances_N = distances(inputs_NP, value_P)
    weights_N = clip_weights(distances_N, radius)
    square = 0.0
    for block in blocks(rows, columns):
        difference_NB = inputs_NP[:, block].double() - value_P[block]
        square += float(torch.linalg.vector_norm(weights_N @ difference_NB)) ** 2
    return math.sqrt(square), distances_N.tolist()
