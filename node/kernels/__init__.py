"""Compiled passes over whole vectors, where a C compiler is; every caller has a torch version that takes their place.

They change no result that peers compare: checksums and updates have the same bits either way. All tensors are
contiguous, on the CPU; a function returns None where there is no library.
"""

from __future__ import annotations

import ctypes
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch
from blake3 import blake3
from torch import Tensor

from btard.node.kernels.memory import POOL

_WIDTH = 256
FOLDER = Path(__file__).parent
# No fast-math and no contraction: the order of sums and the rounding of products are part of the definition.
FLAGS = ("-O3", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno")
_SHARED = ("-shared", "-fPIC")
_COMPILERS = ("cc", "gcc", "clang")
_LIMIT_S = 300.0  # five seconds of computing, on a machine that does other things too


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, built on first use; None where they cannot be built."""
    found = compiled("kernels.c")
    return _declared(found) if found is not None else None


def compiled(*files: str) -> ctypes.CDLL | None:
    """`build` by this machine's compiler into the user's cache; None where that cannot be done."""
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name)) is not None), None)
    if compiler is None:
        return None
    try:
        return build(compiler, Path.home() / ".cache" / "btard" / "kernels", *files)
    except (OSError, RuntimeError, subprocess.SubprocessError):
        return None


def build(compiler: str, directory: Path, *files: str) -> ctypes.CDLL:
    """Compile one of this folder's sources into `directory`, unless it lies there, and load it.

    Args:
        compiler: path of a C compiler that takes GCC's options.
        directory: made if it is not there; the library's name is a digest of its sources and options.
        files: the source, then what it includes.

    Raises:
        OSError: the directory cannot be written, or the library not loaded.
        subprocess.SubprocessError: the compiler failed.
    """
    source = b"\0".join((FOLDER / name).read_bytes() for name in files)
    options = (*FLAGS, *_SHARED)
    name = blake3(source + "\0".join((compiler, *options, platform.machine())).encode()).hexdigest(length=16)
    target = directory / f"{name}.so"
    if not target.exists():
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(dir=directory) as aside:
            made = Path(aside) / target.name
            command = [compiler, *options, str(FOLDER / files[0]), "-o", str(made), "-lm"]
            subprocess.run(command, check=True, capture_output=True, timeout=_LIMIT_S)
            made.replace(target)  # another process may be at it too: either file is whole
    return ctypes.CDLL(str(target))


def _declared(found: ctypes.CDLL) -> ctypes.CDLL:
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_float
    found.btard_checksum.argtypes = (address, address, address, size, address)
    found.btard_gram.argtypes = (address, size, size, address, size, address, address)
    found.btard_combine.argtypes = (address, size, size, address, ctypes.c_double, address)
    found.btard_update.argtypes = (address, address, address, size, number, number, address, address)
    for function in (found.btard_checksum, found.btard_gram, found.btard_combine, found.btard_update):
        function.restype = None
    found.btard_squares.argtypes, found.btard_squares.restype = (address, size), ctypes.c_double
    return found


def sums(gradient_P: Tensor, aggregate_P: Tensor, direction_P: Tensor) -> tuple[float, float] | None:
    """`(sum (g - v)^2, sum (g - v) z)`, in the order of `verification.sums`; float32 `[P]` each."""
    found = library()
    if found is None:
        return None
    result = (ctypes.c_double * 2)()
    g, v, z = gradient_P.data_ptr(), aggregate_P.data_ptr(), direction_P.data_ptr()
    found.btard_checksum(g, v, z, gradient_P.numel(), result)
    return result[0], result[1]


def squares(values_P: Tensor) -> float | None:
    """`sum v^2`, in the order of `btard.node.protocol.attempt.verification.squares`; float32 `[P]`."""
    found = library()
    return found.btard_squares(values_P.data_ptr(), values_P.numel()) if found is not None else None


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
    even = rows + rows % 2
    scratch = torch.empty(even * _WIDTH + 8 * even * even + rows * _WIDTH // 2 + 1, dtype=torch.float64)
    gram_NN = torch.empty(even, even, dtype=torch.float64)
    wires = [wire for comparator in network for wire in comparator]
    found.btard_gram(
        _addresses(rows_N), rows, columns, (ctypes.c_int * len(wires))(*wires), len(network), scratch.data_ptr(),
        gram_NN.data_ptr(),
    )  # fmt: skip
    lower_NN = gram_NN[:rows, :rows].tril()
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
