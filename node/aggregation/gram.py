"""Gram matrices of centred rows: the one pass over the data that CenteredClip's iteration needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from btard.node import kernels
from btard.node.aggregation.order import comparators, middle
from btard.node.aggregation.rows import block_columns, blocks, joined
from btard.node.protocol.rule import Rows

_FLOAT64_ROUNDING = 2.0**-53


def gram_about_median(inputs_NP: Rows) -> Tensor:
    """Gram matrix of the rows relative to their coordinate-wise median, in one pass.

    The median keeps outliers from drowning the honest rows' distances: uncentred, rows with a common offset and
    outliers 1000 times larger lose most of their digits.

    Args:
        inputs_NP: float32 `[N, P]`, or N rows. The diagonal is not finite if a row holds NaN or an infinity.

    Returns:
        float64 `[N, N]`.
    """
    compiled_NN = kernels.gram(inputs_NP, comparators(len(inputs_NP)))
    return compiled_NN if compiled_NN is not None else gram_by_torch(joined(inputs_NP))


def gram_by_torch(inputs_NP: Tensor) -> Tensor:
    """`gram_about_median` where there is no compiled kernel, and the oracle of the one there is."""
    rows, columns = inputs_NP.shape
    gram_NN = torch.zeros(rows, rows, dtype=torch.float64)
    for block in blocks(rows, columns):
        rows_NB = inputs_NP[:, block]
        centred_NB = rows_NB.double().sub_(middle(rows_NB))
        gram_NN.addmm_(centred_NB, centred_NB.T)
    return gram_NN


def gram_about(inputs_NP: Rows, centre_P: Tensor) -> Tensor:
    """Gram matrix of the rows relative to `centre_P` (float64 `[P]`); float64 `[N, N]`."""
    inputs_NP = joined(inputs_NP)
    rows, columns = inputs_NP.shape
    gram_NN = torch.zeros(rows, rows, dtype=torch.float64)
    for block in blocks(rows, columns):
        centred_NB = inputs_NP[:, block].double().sub_(centre_P[block])
        gram_NN.addmm_(centred_NB, centred_NB.T)
    return gram_NN


def gram_rounding(rows: int, columns: int) -> float:
    """Bound on an entry's rounding error, relative to the product of its two rows' norms, for any order of sums."""
    block = block_columns(rows)
    return (min(block, columns) + math.ceil(columns / block) + 4) * _FLOAT64_ROUNDING
