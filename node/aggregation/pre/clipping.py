"""Rows shortened to a fixed length."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.registry import pre_aggregation
from btard.node.aggregation.residual import clip_weights
from btard.node.aggregation.rows import check_radius, check_shape
from btard.node.aggregation.subsets import row_norms


@pre_aggregation("clipping", source="static clipping, as in Allouah et al. 2025 (ARC), section 2", examples=({},))
def clipping(inputs_NP: Tensor, *, radius: float = 5.0) -> Tensor:
    """Rows longer than the radius are shortened to it.

    Args:
        inputs_NP: float32 `[N, P]`, finite.
        radius: largest norm over the P coordinates, positive; in a run `--tau`, per part.

    Returns:
        float32 `[N, P]`, fresh.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, or a radius that is not positive.

    Source: Allouah et al. 2025 (arXiv 2405.14432), section 2.
    """
    check_shape(inputs_NP)
    check_radius(radius)
    return inputs_NP * clip_weights(row_norms(inputs_NP), radius).float()[:, None]
