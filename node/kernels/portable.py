"""Portable arithmetic: kernels whose results have the same bits on every processor, compiled from portable.c.

Order of sums, rounding and elementary functions are stated there; no vector width, thread count or library changes a
bit. There is no version in torch that gives these bits: without a C compiler there is no portable arithmetic. Tensors
are float32 on the CPU.
"""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from btard.node.errors import BackendError, ConfigError
from btard.node.kernels.building import PORTABLE, compiled

LENET_DIMENSION = 21_840
_FUNCTIONS = ("exp", "log", "cosine", "gelu", "gelu_slope")


@cache
def library() -> ctypes.CDLL:
    """The compiled kernels, built when the package was installed or on first use.

    Raises:
        BackendError: they cannot be built here.
    """
    found = compiled(PORTABLE)
    if found is None:
        raise BackendError(
            "--arithmetic portable: no C compiler here (cc, gcc or clang) that builds its kernels; "
            "install gcc, or use --arithmetic native"
        )
    address, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    found.btard_portable_width.argtypes, found.btard_portable_width.restype = (), number
    found.btard_portable_elementwise.argtypes = (number, number, address, size, address)
    found.btard_portable_product.argtypes = (
        number,
        size,
        size,
        size,
        address,
        size,
        size,
        address,
        size,
        address,
        size,
    )
    found.btard_portable_lenet.argtypes = (number, address, size, address, address, address, address, address)
    found.btard_portable_elementwise.restype = found.btard_portable_product.restype = None
    found.btard_portable_lenet.restype = ctypes.c_double
    found.btard_portable_lenet_scores.argtypes = (number, address, size, address, address)
    found.btard_portable_lenet_scores.restype = number
    found.btard_portable_transformer.argtypes = (number, address, address, size, address, address, address)
    found.btard_portable_transformer.restype = ctypes.c_double
    found.btard_portable_transformer_scores.argtypes = (number, address, address, size, address, address)
    found.btard_portable_transformer_scores.restype = number
    return found


def chosen(arithmetic: str, task: str) -> bool:
    """Whether a task computes with these kernels: what its parameter `arithmetic` says.

    Raises:
        ConfigError: it says neither native nor portable.
        BackendError: they cannot be built here, which is found before anything begins.
    """
    if arithmetic not in ("native", "portable"):
        raise ConfigError(f"task {task!r}: arithmetic {arithmetic!r} is unknown; use native or portable")
    return arithmetic == "portable" and library() is not None


def widths() -> tuple[int, ...]:
    """The widths of vectors, in floats, that this processor can compute with, the widest last; bits do not differ."""
    return (4,) if library().btard_portable_width() == 4 else (4, 8)


def exp(values: Tensor, width: int | None = None) -> Tensor:
    """exp, elementwise; within 2 units in the last place."""
    return _elementwise("exp", values, width)


def log(values: Tensor, width: int | None = None) -> Tensor:
    """Natural logarithm, elementwise; within 2 units in the last place."""
    return _elementwise("log", values, width)


def cosine(turns: Tensor, width: int | None = None) -> Tensor:
    """cos(2 pi turns), elementwise; absolute error below 2e-7 where |turns| < 2^21."""
    return _elementwise("cosine", turns, width)


def gelu(values: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
    """x Phi(x) and its derivative, elementwise; absolute error below 3e-7 max(1, |x|)."""
    return _elementwise("gelu", values, width), _elementwise("gelu_slope", values, width)


def product(left: Tensor, right: Tensor, width: int | None = None) -> Tensor:
    """Matrix product `[m, k] @ [k, n]`; each entry's k products are added one after the other, from 0.

    Args:
        left: any strides.
        right: copied, unless its rows are contiguous.
        width: of vectors; None: the widest.
    """
    right = right.contiguous()
    result = torch.zeros(left.shape[0], right.shape[1])
    library().btard_portable_product(
        width or widths()[-1],
        *result.shape,
        left.shape[1],
        left.data_ptr(),
        *left.stride(),
        right.data_ptr(),
        right.shape[1],
        result.data_ptr(),
        right.shape[1],
    )
    return result


def lenet_gradient(
    parameters_D: Tensor,
    inputs_B: Tensor,
    targets_B: Tensor,
    channels: Tensor,
    hidden: Tensor,
    width: int | None = None,
) -> tuple[Tensor, float]:
    """Gradient `[D]` of the mean cross entropy of the network of `training/models/lenet.py`, and its value.

    Args:
        parameters_D: float32 `[D]`.
        inputs_B: normalised images, float32 `[B, 1, 28, 28]`.
        targets_B: labels, int64 `[B]`.
        channels, hidden: dropout's factors, float32 `[20, B]` and `[50, B]`.
        width: of vectors; None: the widest.
    """
    batch = len(targets_B)
    shapes = ((LENET_DIMENSION,), (batch, 1, 28, 28), (batch,), (20, batch), (50, batch))
    given = [each.contiguous() for each in (parameters_D, inputs_B, targets_B, channels, hidden)]
    assert tuple(tuple(each.shape) for each in given) == shapes and targets_B.dtype == torch.int64
    gradient_D = torch.empty(LENET_DIMENSION)
    x, images, targets, first, second = (each.data_ptr() for each in given)
    loss: float = library().btard_portable_lenet(
        width or widths()[-1], x, batch, images, targets, first, second, gradient_D.data_ptr()
    )
    if loss < 0:
        raise MemoryError("no memory for a portable gradient")
    return gradient_D, loss


def lenet_scores(parameters_D: Tensor, inputs_B: Tensor, width: int | None = None) -> Tensor:
    """Scores `[B, 10]` of normalised images float32 `[B, 1, 28, 28]`, without dropout."""
    assert inputs_B.shape[1:] == (1, 28, 28) and parameters_D.shape == (LENET_DIMENSION,)
    parameters_D, inputs_B = parameters_D.contiguous(), inputs_B.contiguous()
    scores = torch.empty(len(inputs_B), 10)
    if library().btard_portable_lenet_scores(
        width or widths()[-1], parameters_D.data_ptr(), len(inputs_B), inputs_B.data_ptr(), scores.data_ptr()
    ):
        raise MemoryError("no memory for portable scores")
    return scores


def transformer_gradient(
    sizes: tuple[int, int, int, int, int],
    parameters_D: Tensor,
    text_BT: Tensor,
    targets_BT: Tensor,
    width: int | None = None,
) -> tuple[Tensor, float]:
    """Gradient `[D]` of the mean cross entropy of the network of `training/models/transformer.py`, and its value.

    Args:
        sizes: characters (V), context (T), width, blocks and heads.
        parameters_D: float32 `[D]`.
        text_BT: characters, int64 `[B, T]`.
        targets_BT: the characters that follow them, int64 `[B, T]`.
        width: of vectors; None: the widest.

    Raises:
        ValueError: a character is not in the alphabet.
    """
    gradient_D = torch.empty_like(parameters_D)
    given = _checked(sizes, parameters_D, text_BT, targets_BT)
    loss: float = library().btard_portable_transformer(
        width or widths()[-1],
        (ctypes.c_size_t * 5)(*sizes),
        given[0].data_ptr(),
        len(text_BT),
        given[1].data_ptr(),
        given[2].data_ptr(),
        gradient_D.data_ptr(),
    )
    if loss < 0:
        raise MemoryError("no memory for a portable gradient")
    return gradient_D, loss


def transformer_scores(
    sizes: tuple[int, int, int, int, int], parameters_D: Tensor, text_BT: Tensor, width: int | None = None
) -> Tensor:
    """Scores `[B, T, V]` of the next character after every place; arguments as for `transformer_gradient`.

    Raises:
        ValueError: a character is not in the alphabet.
    """
    given = _checked(sizes, parameters_D, text_BT)
    scores_BTV = torch.empty(*text_BT.shape, sizes[0])
    if library().btard_portable_transformer_scores(
        width or widths()[-1],
        (ctypes.c_size_t * 5)(*sizes),
        given[0].data_ptr(),
        len(text_BT),
        given[1].data_ptr(),
        scores_BTV.data_ptr(),
    ):
        raise MemoryError("no memory for portable scores")
    return scores_BTV


def _checked(sizes: tuple[int, int, int, int, int], parameters_D: Tensor, *texts_BT: Tensor) -> list[Tensor]:
    """Contiguous, after a check of all that the kernels address memory by."""
    characters, context, width, blocks, heads = sizes
    assert width % heads == 0
    assert parameters_D.shape == ((characters + context + blocks * (12 * width + 4) + 2) * width,)
    for text_BT in texts_BT:
        assert text_BT.shape == (len(texts_BT[0]), context) and text_BT.dtype == torch.int64
        if bool(((text_BT < 0) | (text_BT >= characters)).any()):
            raise ValueError(f"a character is not one of 0 to {characters - 1}")
    return [each.contiguous() for each in (parameters_D, *texts_BT)]


def _elementwise(function: str, values: Tensor, width: int | None) -> Tensor:
    values = values.contiguous()
    result = torch.empty_like(values)
    library().btard_portable_elementwise(
        width or widths()[-1], _FUNCTIONS.index(function), values.data_ptr(), values.numel(), result.data_ptr()
    )
    return result
