"""The geometric median."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.centered_clip import fixed_point
from btard.node.aggregation.registry import rule
from btard.node.aggregation.rows import check_radius
from btard.node.protocol.rule import Aggregated


def counted(inputs_NP: Tensor, *, smoothing: float = 0.1, eps: float = 1e-6) -> Aggregated:
    """`geometric_median` together with the number of iterations it took; same arguments, same errors."""
    check_radius(smoothing, "smoothing")
    return fixed_point(inputs_NP, radius=smoothing, eps=eps)


@rule(
    "geometric_median", source="Chen et al. 2017; Pillutla et al. 2022 (smoothed Weiszfeld)", residual=None,
    counted=counted, examples=({}, {"smoothing": 1.0}),
)  # fmt: skip
def geometric_median(inputs_NP: Tensor, *, smoothing: float = 0.1, eps: float = 1e-6) -> Tensor:
    """The point with the smallest sum of distances to all rows, distances below `smoothing` counting quadratically.

    Smoothed Weiszfeld weights `1 / max(smoothing, ||x_i - v||)` are those of CenteredClip with that radius up to a
    common factor, so both have the same fixed point, and the same converged solver finds it.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        smoothing: an L2 norm over the P coordinates, positive.
        eps: share of `smoothing` that the mean residual may leave, from 1e-8.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or a parameter out of range.
        ArithmeticError: no fixed point to this precision was found (never a wrong value).

    Source: Chen, Su and Xu 2017 (arXiv 1705.05491); Pillutla et al. 2022 (arXiv 1912.13445), algorithm 2.
    """
    return counted(inputs_NP, smoothing=smoothing, eps=eps).value_P
