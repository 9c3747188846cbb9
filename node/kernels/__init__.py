"""Compiled passes over whole vectors, where a C compiler is; every caller has a torch version that takes their place.

They change no result that peers compare: checksums, updates and the solver's steps have the same bits either way. All
tensors are contiguous, on the CPU; a function returns None where there is no library, but for `sums` and `squares`: who
chooses them asks `library` once.

Results are put into memory that is used again (node/vector_pool.py).
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from btard.node.kernels.building import PASSES, compiled
from btard.node.vector_pool import POOL

# --- the library ----------------------------------------------------------------------------------------------


_WIDTH = 128

ANSWER = 0x206C74E30334B325
"""What `btard_answer` gives wherever the order of sums and the rounding were kept to."""


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels; None, and one warning, where there are none or where they give other bits."""
    found = compiled(PASSES)
    if found is None:
        _without("no compiled kernels here, so torch's passes take their place: no C compiler (cc, gcc or clang)")
        return None
    found.btard_answer.argtypes, found.btard_answer.restype = (), ctypes.c_uint64
    if found.btard_answer() != ANSWER:
        _without(
            "compiled kernels give other bits than they should, so torch's passes take their place; is `cc` one that "
            "reorders or fuses floating-point operations?"
        )
        return None
    return _declared(found)


def _without(why: str) -> None:
    warnings.warn(why, RuntimeWarning, stacklevel=3)


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float
    found.btard_checksum.argtypes = (address, address, address, size, address)
    found.btard_gram.argtypes = (address, size, size, address, size, address, address)
    found.btard_combine.argtypes = (address, size, size, address, ctypes.c_double, address)
    found.btard_update.argtypes = (address, address, address, size, number, number, address, address)
    for function in (found.btard_checksum, found.btard_gram, found.btard_combine, found.btard_update):
        function.restype = None
    found.btard_squares.argtypes, found.btard_squares.restype = (address, size), ctypes.c_double
    real = ctypes.c_double
    found.btard_clip.argtypes = (address, size, real, real, real, size, address, address, address)
    found.btard_clip.restype = size
    return found


def sums(gradient_P: Tensor, aggregate_P: Tensor, direction_P: Tensor) -> tuple[float, float]:
    """`(sum (g - v)^2, sum (g - v) z)`, in the order of `verification.sums`; float32 `[P]` each. It needs a library."""
    found = library()
    assert found is not None
    result = (ctypes.c_double * 2)()
    g, v, z = gradient_P.data_ptr(), aggregate_P.data_ptr(), direction_P.data_ptr()
    found.btard_checksum(g, v, z, gradient_P.numel(), result)
    return result[0], result[1]


def squares(values_P: Tensor) -> float:
    """`sum v^2`, in the order of `verification.squares`; float32 `[P]`. It needs a library."""
    found = library()
    assert found is not None
    value: float = found.btard_squares(values_P.data_ptr(), values_P.numel())
    return value


def gram(inputs_NP: Tensor | Sequence[Tensor], network: tuple[tuple[int, int], ...]) -> Tensor | None:
    """Gram matrix, float64 `[N, N]`, of float32 rows `[N, P]` about their coordinate-wise median.

    Args:
        inputs_NP: the rows, beside one another or apart.
        network: comparators that bring each column's middle values to the middle wires.
    """
    found = library()
    if found is None:
        return None
    rows_N = _contiguous(inputs_NP)
    rows, columns = len(rows_N), rows_N[0].numel()
    scratch = torch.empty(rows * _WIDTH + 8 * rows * rows + rows * _WIDTH // 2, dtype=torch.float64)
    gram_NN = torch.empty(rows, rows, dtype=torch.float64)
    wires = [wire for comparator in network for wire in comparator]
    found.btard_gram(
        _addresses(rows_N), rows, columns, (ctypes.c_int * len(wires))(*wires), len(network), scratch.data_ptr(),
        gram_NN.data_ptr(),
    )  # fmt: skip
    lower_NN = gram_NN.tril()
    return lower_NN + lower_NN.tril(-1).T


def combined(inputs_NP: Tensor | Sequence[Tensor], coefficients_N: Tensor, scale: float = 1.0) -> Tensor | None:
    """`scale sum_i a_i x_i`, summed in float64, rounded to float32 once, -0 normalised; coefficients float64 `[N]`."""
    found = library()
    if found is None:
        return None
    rows_N = _contiguous(inputs_NP)
    rows, columns = len(rows_N), rows_N[0].numel()
    value_P = POOL.empty(columns)
    coefficients_N = coefficients_N.contiguous()
    found.btard_combine(_addresses(rows_N), rows, columns, coefficients_N.data_ptr(), scale, value_P.data_ptr())
    return value_P


def clipped(
    gram_NN: Tensor, radius: float, goal: float, rounding: float, steps: int
) -> tuple[Tensor, int, float, float] | None:
    """Plain steps of CenteredClip, to the bit `btard.node.aggregation.clip_solver.plain_steps`; the same arguments."""
    found = library()
    if found is None:
        return None
    count = len(gram_NN)
    gram_NN = gram_NN.contiguous()
    scratch, coefficients_N = torch.empty(4 * count, dtype=torch.float64), torch.empty(count, dtype=torch.float64)
    result = (ctypes.c_double * 2)()
    taken = found.btard_clip(
        gram_NN.data_ptr(), count, radius, goal, rounding, steps, scratch.data_ptr(), coefficients_N.data_ptr(), result
    )
    return coefficients_N, taken, result[0], result[1]


def roots(values: Tensor) -> Tensor:
    """Square roots, elementwise, rounded to the nearest as IEEE 754 has them; without a library too.

    Torch asks a vendor's library, of whose float32 roots one in six errs in the last bit.
    """
    return torch.from_numpy(np.asarray(np.sqrt(values.detach().numpy())))


def updated(
    parameters_D: Tensor, state_D: Tensor, gradient: Sequence[Tensor], momentum: float, rate: float
) -> tuple[Tensor, Tensor] | None:
    """A Nesterov step of float32 `[D]`, to the bit `btard.node.training.optimiser`'s: new parameters and new state.

    Args:
        parameters_D, state_D: as they are.
        gradient: float32 `[P]` of each part, `[D]` together.
    """
    found = library()
    if found is None:
        return None
    parameters_next_D, state_next_D = POOL.empty(parameters_D.numel()), POOL.empty(parameters_D.numel())
    x, u = parameters_D.data_ptr(), state_D.data_ptr()
    x_next, u_next = parameters_next_D.data_ptr(), state_next_D.data_ptr()
    start = 0
    for part_P in gradient:
        count, at = part_P.numel(), 4 * start
        found.btard_update(x + at, u + at, part_P.data_ptr(), count, momentum, rate, x_next + at, u_next + at)
        start += count
    assert start == parameters_D.numel()
    return parameters_next_D, state_next_D


def _contiguous(inputs_NP: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [row_P.contiguous() for row_P in inputs_NP]


def _addresses(rows_N: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(rows_N))(*[row_P.data_ptr() for row_P in rows_N])
