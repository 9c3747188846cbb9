"""Distances between rows and choices among them, from one pass over the data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import combinations

import torch
from torch import Tensor

from btard.node import kernels
from btard.node.aggregation.gram import gram_about_median
from btard.node.aggregation.residual import distances
from btard.node.aggregation.rows import check_rows, combine_float32

MOST_SUBSETS = 200_000


def pair_squares(inputs_NP: Tensor) -> Tensor:
    """Squared distances between all rows, float64 `[N, N]`, from the Gram matrix about the median."""
    return squares_of(gram_about_median(inputs_NP))


def squares_of(gram_NN: Tensor) -> Tensor:
    """Squared distances from a Gram matrix about any centre; never negative, exactly 0 on the diagonal."""
    norms_N = gram_NN.diagonal()
    squares_NN = (norms_N[:, None] + norms_N - 2 * gram_NN).clamp_(min=0)
    return squares_NN.fill_diagonal_(0)


def row_norms(inputs_NP: Tensor) -> Tensor:
    """L2 norms of the rows, float64 `[N]`.

    Raises:
        ValueError: a row that holds NaN or an infinity (its norm says so: it takes no pass of its own).
    """
    if kernels.library() is None:
        norms_N = distances(inputs_NP, torch.zeros(inputs_NP.shape[1]))
    else:
        squares = [kernels.squares(row_P) for row_P in inputs_NP.contiguous()]
        norms_N = torch.tensor(squares, dtype=torch.float64).sqrt_()
    if not bool(torch.isfinite(norms_N).all()):
        check_rows(inputs_NP)
    return norms_N


def row_distances(inputs_NP: Tensor, centre_P: Tensor) -> Tensor:
    """Distances of the rows to a float32 vector, float64 `[N]`."""
    if kernels.library() is None:
        return distances(inputs_NP, centre_P)
    centre_P = centre_P.contiguous()
    squares = [kernels.sums(row_P, centre_P, centre_P)[0] for row_P in inputs_NP.contiguous()]
    return torch.tensor(squares, dtype=torch.float64).sqrt_()


def mean_of(inputs_NP: Tensor, chosen: list[int]) -> Tensor:
    """Average of the chosen rows, summed in float64 and rounded once; float32 `[P]`."""
    # Rows that are left out count 0 times: cheaper than a copy of the others, and they are finite.
    counts_N = torch.zeros(len(inputs_NP), dtype=torch.float64)
    counts_N[chosen] = 1.0
    return combine_float32(inputs_NP, counts_N, 1.0 / len(chosen))


def lowest(scores_N: Tensor, count: int) -> list[int]:
    """Places of the `count` smallest scores, ascending; of equal ones, the first."""
    return sorted(scores_N.argsort(stable=True)[:count].tolist())


def subsets(name: str, rows: int, size: int) -> Iterator[tuple[int, ...]]:
    """All subsets of `size` of the rows, in lexicographic order.

    Raises:
        ValueError: there are too many of them.
    """
    count = math.comb(rows, size)
    if count > MOST_SUBSETS:
        raise ValueError(
            f"{name} looks at all {count} subsets of {size} of {rows} rows, more than {MOST_SUBSETS}; use a smaller f"
        )
    return combinations(range(rows), size)
