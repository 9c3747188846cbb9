"""CenteredClip run to its fixed point; on one part of the vector it is the paper's ButterflyClip."""

from __future__ import annotations

import torch
from torch import Tensor

from btard.node.aggregation.clip_solver import solve
from btard.node.aggregation.gram import gram_about, gram_about_median, gram_rounding
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_radius, check_rows, check_shape, combine, combine_float32
from btard.node.protocol.rule import Aggregated, Rows

# Passes over the data: one nearly always; each later one is centred at the result of the one before.
_PASSES = 6
_SMALLEST_EPS = 1e-8


def fixed_point(inputs_NP: Rows, *, radius: float = 5.0, eps: float = 1e-6) -> Aggregated:
    """`centered_clip` together with the number of iterations it took; same arguments, same errors.

    The rows may also be N tensors `[P]`, each where it lies.
    """
    check_radius(radius)
    if not _SMALLEST_EPS <= eps < 1:
        raise ValueError(f"eps {eps} must lie in [{_SMALLEST_EPS}, 1)")
    rows, columns = check_shape(inputs_NP)
    if columns == 0:
        return Aggregated(torch.empty(0), 0)
    rounding = gram_rounding(rows, columns)
    gram_NN = gram_about_median(inputs_NP)
    if not bool(torch.isfinite(gram_NN.diagonal()).all()):
        check_rows(inputs_NP)  # an entry that is not finite leaves its mark there: no pass of its own is needed
    iterations = 0
    for _ in range(_PASSES):
        solution = solve(gram_NN, radius, eps, rounding)
        iterations += solution.iterations
        if solution.certain:
            return Aggregated(combine_float32(inputs_NP, solution.coefficients_N), iterations)
        # Distances much smaller than the rows' norms lost their digits: about v itself they keep them.
        gram_NN = gram_about(inputs_NP, combine(inputs_NP, solution.coefficients_N))
    raise ArithmeticError(
        f"centered_clip did not converge in {iterations} iterations at radius {radius}, eps {eps}; use a larger eps"
    )


@rule(
    "centered_clip",
    source="Karimireddy et al. 2021; Gorbunov et al. 2021, algorithm 2 (per part: Butterfly Clip)",
    residual="clipped",
    counted=fixed_point,
    scattered=True,
    examples=({}, {"eps": 1e-4}),
)
def centered_clip(inputs_NP: Tensor, *, radius: float = 5.0, eps: float = 1e-6) -> Tensor:
    """Fixed point v of `sum_i w_i (x_i - v) = 0` with `w_i = min(1, radius / ||x_i - v||)`.

    An attacker's row moves the sum by at most `radius`, however large it is. The returned value, rounded to float32,
    leaves `||sum_i w_i (x_i - v)|| <= N (eps radius + 2^-23 ||v||)` in direct float64 evaluation.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        radius: clipping radius, an L2 norm over the P coordinates, positive.
        eps: share of the radius that the mean residual may leave, from 1e-8.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or a radius or eps out of range.
        ArithmeticError: no fixed point to this precision was found (never a wrong value).

    Source: Karimireddy et al. 2021 (arXiv 2012.10333); Gorbunov et al. 2021 (arXiv 2106.11257), equation 1.
    """
    return fixed_point(inputs_NP, radius=radius, eps=eps).value_P
