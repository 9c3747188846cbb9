"""Contributors' rows: what every rule checks first, and the blocks it reads them in."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from btard.node import kernels
from btard.node.protocol.rule import Rows

# Numbers in one block of rows, and columns at most: measured at n = 6, 16 and 64. Smaller blocks pay for their calls
# (at n = 64, 2,048 columns take twice as long as 8,192), larger ones gain nothing and sum less exactly.
_BLOCK_NUMBERS = 1 << 19
_BLOCK_COLUMNS = 1 << 15


def joined(inputs_NP: Rows) -> Tensor:
    """Rows as one tensor `[N, P]`: themselves, or a copy of those that lie apart."""
    return inputs_NP if isinstance(inputs_NP, Tensor) else torch.stack(list(inputs_NP))


def check_rows(inputs_NP: Rows) -> None:
    """Refuse what no rule can aggregate, before any arithmetic.

    Args:
        inputs_NP: float32 `[N, P]`, N >= 1, P >= 0, or N rows.

    Raises:
        ValueError: another shape or type, or a row that holds NaN or an infinity (the row is named).
    """
    check_shape(inputs_NP)
    if isinstance(inputs_NP, Tensor) and all_finite(inputs_NP):
        return
    for row, row_P in enumerate(inputs_NP):
        if not all_finite(row_P):
            raise ValueError(f"row {row} of the inputs is not finite; leave its sender out before aggregating")


def check_shape(inputs_NP: Rows) -> tuple[int, int]:
    """The part of `check_rows` that looks at no entry; returns N and P.

    Raises:
        ValueError: another shape or type.
    """
    if isinstance(inputs_NP, Tensor):
        shape, kinds = list(inputs_NP.shape), {inputs_NP.dtype}
        good = len(shape) == 2 and shape[0] > 0
    else:
        shape, kinds = [len(inputs_NP), *inputs_NP[0].shape], {row_P.dtype for row_P in inputs_NP}
        good = len(shape) == 2 and all(row_P.shape == inputs_NP[0].shape for row_P in inputs_NP)
    if not good or kinds != {torch.float32}:
        kind = " and ".join(sorted(map(str, kinds)))
        raise ValueError(f"inputs are {kind} of shape {shape}; pass float32 rows as [N, P] with N >= 1")
    return shape[0], shape[1]


def all_finite(values: Tensor) -> bool:
    """True if no entry is NaN or infinite."""
    if values.numel() == 0:
        return True
    # The extremes propagate NaN and need no mask as large as the values: 13 times faster than isfinite().all().
    low, high = torch.aminmax(values)
    return math.isfinite(low.item()) and math.isfinite(high.item())


def check_radius(radius: float, name: str = "radius") -> None:
    """Refuse a clipping radius that is not a positive, finite number.

    Args:
        radius: an L2 norm.
        name: what the rule calls it.

    Raises:
        ValueError: the radius and its range.
    """
    if not (math.isfinite(radius) and radius > 0):
        raise ValueError(f"{name} {radius} must be a positive, finite number")


def blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices of `columns` small enough that `rows` of them stay in the cache; the same ones for equal shapes."""
    step = block_columns(rows)
    for start in range(0, columns, step):
        yield slice(start, min(start + step, columns))


def block_columns(rows: int) -> int:
    """Columns of one block of `rows` rows."""
    return max(256, min(_BLOCK_COLUMNS, _BLOCK_NUMBERS // rows))


def combine(inputs_NP: Rows, coefficients_N: Tensor) -> Tensor:
    """`sum_i a_i x_i`, summed in float64.

    Args:
        inputs_NP: float32 `[N, P]`, or N rows.
        coefficients_N: float64 `[N]`.

    Returns:
        float64 `[P]`.
    """
    inputs_NP = joined(inputs_NP)
    rows, columns = inputs_NP.shape
    value_P = torch.empty(columns, dtype=torch.float64)
    for block in blocks(rows, columns):
        torch.mv(inputs_NP[:, block].double().T, coefficients_N, out=value_P[block])
    return value_P


def to_float32(value_P: Tensor) -> Tensor:
    """`value_P` rounded to float32 with -0 turned into 0, so that equal values have equal bytes."""
    return value_P.float().add_(0.0)


def combine_float32(inputs_NP: Rows, coefficients_N: Tensor, scale: float = 1.0) -> Tensor:
    """`to_float32(scale combine(inputs_NP, coefficients_N))`, in one pass where there is a compiled kernel."""
    compiled_P = kernels.combined(inputs_NP, coefficients_N, scale)
    return compiled_P if compiled_P is not None else to_float32(combine(inputs_NP, coefficients_N).mul_(scale))
