"""Momentum of each worker's own gradients."""

from __future__ import annotations

from torch import Tensor

from btard.node.aggregation.rows import check_rows


def worker_momentum(inputs_NP: Tensor, before_NP: Tensor | None = None, *, beta: float = 0.9) -> Tensor:
    """`m_i = beta m_i + (1 - beta) g_i` for every worker: the spread of honest rows falls, outliers stay.

    It has a memory, so no judge could recompute a row from one step's public seed: comparison topologies alone offer
    it, and no `--rule` of the protocol does.

    Args:
        inputs_NP: this step's gradients, float32 `[N, P]`, finite.
        before_NP: the momenta after the step before; None: there is none yet, and m_i = g_i.
        beta: weight of the past, from 0 to below 1.

    Returns:
        The new momenta, float32 `[N, P]`, fresh.

    Raises:
        ValueError: not float32 `[N, P]`, not finite, other shapes, or beta out of range.

    Source: Karimireddy, He and Jaggi 2021 (arXiv 2012.10333), section 4; Farhadkhani et al. 2022 (arXiv 2205.12173).
    """
    check_rows(inputs_NP)
    if not 0 <= beta < 1:
        raise ValueError(f"beta={beta} must lie in [0, 1)")
    if before_NP is None:
        return inputs_NP.clone()
    if before_NP.shape != inputs_NP.shape:
        raise ValueError(f"momenta of shape {list(before_NP.shape)} do not fit gradients of {list(inputs_NP.shape)}")
    return before_NP * beta + inputs_NP * (1 - beta)
