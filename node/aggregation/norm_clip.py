"""The mean of shortened rows."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.registry import rule
from btard.node.aggregation.residual import clip_weights
from btard.node.aggregation.rows import check_radius, check_shape, combine_float32
from btard.node.aggregation.subsets import row_norms


@rule("norm_clip", source="Sun et al. 2019 (norm bounding)", residual=None, examples=({},))
def norm_clip(inputs_NP: Tensor, *, radius: float = 5.0) -> Tensor:
    """Average of the rows, each shortened to the radius; CenteredClip's first step from 0.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        radius: largest norm of a row over the P coordinates, positive.

    Returns:
        float32 `[P]`, -0 normalised.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or a radius that is not positive.

    Source: Sun et al. 2019 (arXiv 1911.07963), section 4.
    """
    check_shape(inputs_NP)
    check_radius(radius)
    return combine_float32(inputs_NP, clip_weights(row_norms(inputs_NP), radius) / len(inputs_NP))
