"""Portable arithmetic for a model of one's own: torch's operations replaced one by one, forward and backward.

`Portable` sees every operation below autograd. What has one right answer in IEEE 754 (sums and products of two numbers,
comparisons, copies) is left to torch. Sums over a dimension, matrix products, convolutions, elementary functions and
random draws have a stated order or definition here. Layers that torch itself states in such operations are taken apart
into them. Whatever is left has no portable form: torch computes it, and its name is noted in `foreign`.

Sums and products add their terms one after the other (`portable.product`). Draws are Philox's integers (Salmon et al.
2011), keyed by the seed of torch's global generator. Only float32 on the CPU is portable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from btard.node import kernels
from btard.node.kernels import portable

_ONE_ANSWER = """
_index_put_impl_ _local_scalar_dense _reshape_alias _reshape_copy _to_copy _unsafe_index _unsafe_index_put
_unsafe_view abs adaptive_max_pool2d alias all amax amin any argmax argmin as_strided avg_pool2d avg_pool2d_backward
bitwise_and bitwise_not bitwise_or bitwise_right_shift cat ceil clamp clamp_max clamp_min clone conj_physical
constant_pad_nd copy copy_ detach diagonal div embedding embedding_dense_backward empty empty_like empty_strided eq
equal expand fill fill_ flip floor floor_divide full full_like gather ge gt hardtanh hardtanh_backward index
index_fill index_select is_same_size isfinite isinf isnan le leaky_relu leaky_relu_backward lift_fresh logical_and
logical_not logical_or lt masked_fill max max_pool1d max_pool2d_with_indices max_pool2d_with_indices_backward
maximum min minimum mul narrow ne neg new_empty new_empty_strided new_full new_ones new_zeros nonzero ones ones_like
permute prim_device randint random_ randperm reciprocal relu remainder repeat round scalar_tensor scatter select
select_backward sgn sign slice slice_backward sort split split_with_sizes squeeze stack sym_size t
threshold_backward to topk transpose tril triu trunc unbind unfold unsafe_split unsqueeze view where zero zero_
zeros zeros_like
"""
EXACT = frozenset(_ONE_ANSWER.split())
"""Operations with one right answer: the bits of torch are those of every processor."""

_IN_SIMPLER_ONES = """
_batch_norm_with_update _fused_dropout _log_softmax _log_softmax_backward_data _safe_softmax _softmax
_softmax_backward_data addcdiv addcmul binary_cross_entropy_with_logits elu elu_backward gelu gelu_backward
hardsigmoid hardsigmoid_backward hardswish hardswish_backward huber_loss huber_loss_backward l1_loss lerp
log_sigmoid_backward log_sigmoid_forward mse_loss mse_loss_backward native_batch_norm native_batch_norm_backward
native_dropout native_dropout_backward native_group_norm native_group_norm_backward native_layer_norm
native_layer_norm_backward nll_loss2d_backward nll_loss2d_forward nll_loss_backward nll_loss_forward
sigmoid_backward silu silu_backward smooth_l1_loss smooth_l1_loss_backward softplus softplus_backward tanh_backward
"""
APART = tuple(_IN_SIMPLER_ONES.split())
"""Operations that torch states in simpler ones."""

_FUSED: tuple[tuple[Callable[[], bool], Callable[[bool], None]], ...] = (
    (torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    (torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled),
    (torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
)
"""Switches of layers that would come as one operation, of which nothing is known; attention's is the CPU's as well."""

_SMALL = 0.125
"""Below it tanh is its series, and above a quotient, whose difference would lose digits."""


class Portable(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's own lacks types
    """Inside it float32 operations on the CPU have the same bits on every processor, but for those in `foreign`.

    Raises:
        BackendError: there is no C compiler here.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True  # or torch would load its compiler, which takes seconds and some 100 MB

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        portable.library()
        self.foreign: set[str] = set()
        """Names of the operations that torch has computed in its own way."""
        self._draws = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Portable arithmetic for a while, its draws from the beginning."""
        self._draws = 0
        before = [is_on() for is_on, _ in _FUSED]
        for _, turn in _FUSED:
            turn(False)
        try:
            with self:
                yield
        finally:
            for (_, turn), was in zip(_FUSED, before, strict=True):
                turn(was)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operation."""
        kwargs = kwargs or {}
        name = func._schema.name.removeprefix("aten::")
        plain = name.rstrip("_")
        if plain not in EXACT and _floats(args):
            with suppress(NotImplementedError):  # a form of it that has no portable one
                out = kwargs.get("out", args[0] if name != plain and plain not in _FILLING else None)
                result = self._own(func, plain, args, {key: each for key, each in kwargs.items() if key != "out"})
                return result if out is None else out.copy_(result)
        return self._torchs(func, name, args, kwargs)

    def _own(self, func: Any, plain: str, args: Any, kwargs: Any) -> Any:
        """What the operation comes to in portable ones.

        Raises:
            NotImplementedError: it has no such form.
        """
        if plain in _OWN:
            with suppress(NotImplementedError):
                return _OWN[plain](self, *args, **kwargs)
        with self:
            # Inside an operation that is taken apart, others may come whole.
            result = _apart()[plain](*args, **kwargs) if plain in _apart() else func.decompose(*args, **kwargs)
        if result is NotImplemented:
            raise NotImplementedError
        return result

    def _torchs(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        result = func(*args, **kwargs)
        if name.rstrip("_") not in EXACT and name not in EXACT and (_floats(args) or _floats((result,))):
            self.foreign.add(name)
        return result

    def drawn(self, count: int) -> np.ndarray[Any, Any]:
        """So many integers of 64 bits, of the generator that the last seed and the draws since have made."""
        self._draws += 1
        key = [torch.default_generator.initial_seed() % 2**64, self._draws]
        found: np.ndarray[Any, Any] = np.random.Philox(key=key).random_raw(count)
        return found


_Own = Callable[..., Any]


def _floats(values: Any) -> bool:
    """Whether any of the tensors holds numbers that are rounded."""
    for each in values:
        if isinstance(each, Tensor):
            if each.is_floating_point():
                return True
        elif isinstance(each, list | tuple) and _floats(each):
            return True
    return False


def _portable(*tensors: Tensor) -> None:
    if any(each.dtype != torch.float32 or each.device.type != "cpu" for each in tensors):
        raise NotImplementedError


# --- sums and products ------------------------------------------------------------------------------------------


_TERMS = 512
"""Products that are summed at a time; a longer sum is one of such sums, so that its rounding grows less."""


def _product(left: Tensor, right: Tensor) -> Tensor:
    """`[M, K] @ [K, N]`."""
    _portable(left, right)
    total = portable.product(left[:, :_TERMS], right[:_TERMS])
    for first in range(_TERMS, len(right), _TERMS):
        total += portable.product(left[:, first : first + _TERMS], right[first : first + _TERMS])
    return total


def _mm(_: Portable, left: Tensor, right: Tensor) -> Tensor:
    return _product(left, right)


def _scaled(values: Tensor, factor: float) -> Tensor:
    return values if factor == 1 else values * factor


def _addmm(_: Portable, bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    _portable(bias, left, right)
    return _scaled(_product(left, right), alpha) + _scaled(bias, beta)


def _mv(_: Portable, matrix: Tensor, vector: Tensor) -> Tensor:
    _portable(matrix, vector)
    return _product(matrix, vector[:, None])[:, 0]


def _dot(_: Portable, left: Tensor, right: Tensor) -> Tensor:
    _portable(left, right)
    return _product(left[None], right[:, None])[0, 0]


def _bmm(_: Portable, left: Tensor, right: Tensor) -> Tensor:
    _portable(left, right)
    if not len(left):
        raise NotImplementedError
    return torch.stack([_product(*pair) for pair in zip(left, right, strict=True)])


def _baddbmm(mode: Portable, bias: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    _portable(bias)
    return _scaled(_bmm(mode, left, right), alpha) + _scaled(bias, beta)


def _total(values: Tensor, dims: Sequence[int] | None, keep: bool) -> Tensor:
    """Sum over dimensions, all of them for None."""
    count = values.dim()
    over = sorted({each % count for each in dims}) if dims and count else list(range(count))
    kept = [each for each in range(count) if each not in over]
    shape = [values.shape[each] for each in kept]
    terms = values.permute((*over, *kept)).reshape(math.prod(values.shape[each] for each in over), math.prod(shape))
    if not len(terms):
        terms = terms.new_zeros(1, math.prod(shape))
    while len(terms) > 1:  # the second half onto the first: rounding grows with the logarithm of the count
        half = (len(terms) + 1) // 2
        first = terms[:half].clone()
        first[: len(terms) - half] += terms[half:]
        terms = first
    result = terms.clone()
    return result.view([1 if each in over else values.shape[each] for each in range(count)] if keep else shape)


def _sum(_: Portable, values: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    _portable(values)
    if dtype not in (None, torch.float32):
        raise NotImplementedError
    return _total(values, [dim] if isinstance(dim, int) else dim, keepdim)


def _mean(mode: Portable, values: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    total = _sum(mode, values, dim, keepdim, dtype=dtype)
    return total / (values.numel() / max(1, total.numel()))


def _var(
    mode: Portable,
    values: Tensor,
    dim: Any = None,
    unbiased: bool = True,
    keepdim: bool = False,
    *,
    correction: Any = None,
) -> Tensor:
    if isinstance(dim, bool):  # the form without dimensions
        dim, unbiased = None, dim
    centre = _mean(mode, values, dim, True)
    total = _sum(mode, (values - centre) * (values - centre), dim, keepdim)
    return total / max(0, values.numel() / centre.numel() - (int(unbiased) if correction is None else correction))


def _std(mode: Portable, values: Tensor, dim: Any = None, *form: Any, **more: Any) -> Tensor:
    return _sqrt(mode, _var(mode, values, dim, *form, **more))


def _var_mean(mode: Portable, values: Tensor, dim: Any = None, *form: Any, **more: Any) -> tuple[Tensor, Tensor]:
    keep = more.get("keepdim", form[1] if len(form) > 1 else False)
    over = None if isinstance(dim, bool) else dim
    return _var(mode, values, dim, *form, **more), _mean(mode, values, over, keep)


def _norm(
    mode: Portable, values: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    if ord != 2:
        raise NotImplementedError
    return _sqrt(mode, _sum(mode, values * values, dim, keepdim, dtype=dtype))


def _add(_: Portable, left: Any, right: Any, *, alpha: Any = 1) -> Any:
    # A factor could be fused with the sum.
    return torch.add(left, right if alpha == 1 else right * alpha)


def _sub(_: Portable, left: Any, right: Any, *, alpha: Any = 1) -> Any:
    return torch.sub(left, right if alpha == 1 else right * alpha)


def _rsub(_: Portable, left: Any, right: Any, alpha: Any = 1) -> Any:
    return torch.sub(right, left if alpha == 1 else left * alpha)


# --- convolution ------------------------------------------------------------------------------------------------


_Sizes = tuple[Sequence[int], Sequence[int], Sequence[int]]
"""Stride, padding and dilation of a convolution, each along both axes."""


def _sides(images: Tensor, weight: Tensor, sizes: _Sizes) -> list[int]:
    """Height and width of what a convolution makes of images `[N, C, H, W]`."""
    reach = [(length - 1) * gap + 1 for length, gap in zip(weight.shape[2:], sizes[2], strict=True)]
    return [(images.shape[2 + axis] + 2 * sizes[1][axis] - reach[axis]) // sizes[0][axis] + 1 for axis in range(2)]


def _lays(
    padded: Tensor, kernel: Sequence[int], sides: Sequence[int], sizes: _Sizes
) -> Iterator[tuple[int, int, Tensor]]:
    """(row, column, the places of padded images on which it lies) of each entry of a kernel, in reading order."""
    (down, right), _, (high, wide) = sizes
    for y in range(kernel[0]):
        for x in range(kernel[1]):
            top, left = y * high, x * wide
            lay = padded[:, :, top : top + down * sides[0] : down, left : left + right * sides[1] : right]
            yield y, x, lay[:, :, : sides[0], : sides[1]]


def _patches(inputs: Tensor, weight: Tensor, sizes: _Sizes, groups: int) -> Tensor:
    """What each output is a product of, `[groups, channels * kernel, N * places]`; images `[N, C, H, W]`."""
    above, beside = sizes[1]
    kernel, sides = weight.shape[2:], _sides(inputs, weight, sizes)
    images = torch.nn.functional.pad(inputs.transpose(0, 1), (beside, beside, above, above))
    parts = images.new_empty(len(images), *kernel, len(inputs), *sides)
    for y, x, lay in _lays(images, kernel, sides, sizes):
        parts[:, y, x] = lay
    return parts.view(groups, len(images) // groups * kernel.numel(), -1)


def _convolution(
    mode: Portable,
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Tensor:
    _portable(inputs, weight, *(() if bias is None else (bias,)))
    if transposed or inputs.dim() not in (3, 4):
        raise NotImplementedError
    if inputs.dim() == 3:  # a line is an image of height 1
        images, kernels = inputs.unsqueeze(2), weight.unsqueeze(2)
        sizes = [1, *stride], [0, *padding], [1, *dilation]
        return _convolution(mode, images, kernels, bias, *sizes, transposed, output_padding, groups).squeeze(2)
    shape = stride, padding, dilation
    patches = _patches(inputs, weight, shape, groups)
    rows = weight.reshape(groups, len(weight) // groups, -1)
    found = torch.cat([_product(*pair) for pair in zip(rows, patches, strict=True)])
    sides = _sides(inputs, weight, shape)
    outputs = found.view(len(weight), len(inputs), *sides).transpose(0, 1).contiguous()
    return outputs if bias is None else outputs + bias.view(1, -1, 1, 1)


def _convolution_backward(
    mode: Portable,
    gradient: Tensor,
    inputs: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    _portable(gradient, inputs, weight)
    if transposed or inputs.dim() not in (3, 4):
        raise NotImplementedError
    if inputs.dim() == 3:
        given = gradient.unsqueeze(2), inputs.unsqueeze(2), weight.unsqueeze(2), bias_sizes
        sizes = [1, *stride], [0, *padding], [1, *dilation]
        slope, own, to_bias = _convolution_backward(mode, *given, *sizes, transposed, output_padding, groups, mask)
        return slope if slope is None else slope.squeeze(2), own if own is None else own.squeeze(2), to_bias
    rows = weight.reshape(groups, len(weight) // groups, -1)
    # [groups, channels out of a group, N * places]
    spread = gradient.transpose(0, 1).reshape(groups, len(weight) // groups, -1)
    to_inputs, to_weight, to_bias = None, None, None
    if mask[0]:
        columns = [_product(part.T, each) for part, each in zip(rows, spread, strict=True)]
        to_inputs = _folded(columns, inputs, weight, gradient, (stride, padding, dilation))
    if mask[1]:
        patches = _patches(inputs, weight, (stride, padding, dilation), groups)
        # The right matrix is copied where its rows are not contiguous: it is the smaller one.
        found = [_product(each, slopes.T).T for slopes, each in zip(spread, patches, strict=True)]
        to_weight = torch.cat(found).view(weight.shape)
    if mask[2]:
        to_bias = _total(gradient, (0, 2, 3), False)
    return to_inputs, to_weight, to_bias


def _folded(columns: list[Tensor], images: Tensor, kernels: Tensor, slopes: Tensor, sizes: _Sizes) -> Tensor:
    """Each patch's gradient added to where the patch lay, one place of the kernel after the other."""
    above, beside = sizes[1]
    count, channels, height, width = images.shape
    kernel, sides = kernels.shape[2:], slopes.shape[2:]
    parts = (columns[0] if len(columns) == 1 else torch.cat(columns)).view(channels, *kernel, count, *sides)
    result = images.new_zeros(channels, count, height + 2 * above, width + 2 * beside)
    for y, x, lay in _lays(result, kernel, sides, sizes):
        lay += parts[:, y, x]
    return result[:, :, above : above + height, beside : beside + width].transpose(0, 1).contiguous()


# --- elementary functions ---------------------------------------------------------------------------------------


def _exp(_: Portable, values: Tensor) -> Tensor:
    _portable(values)
    return portable.exp(values)


def _log(_: Portable, values: Tensor) -> Tensor:
    _portable(values)
    return portable.log(values)


def _log1p(_: Portable, values: Tensor) -> Tensor:
    """log(u) x / (u - 1), u = 1 + x: what rounding has taken from u it gives back (Kahan)."""
    _portable(values)
    whole = 1.0 + values
    return torch.where(whole == 1.0, values, portable.log(whole) * values / (whole - 1.0))


def _expm1(_: Portable, values: Tensor) -> Tensor:
    """(u - 1) x / log(u), u = exp(x) (Kahan)."""
    _portable(values)
    whole = portable.exp(values)
    near = (whole - 1.0) * values / portable.log(whole)
    return torch.where(whole == 1.0, values, torch.where(values.abs() < 1.0, near, whole - 1.0))


def _sqrt(_: Portable, values: Tensor) -> Tensor:
    _portable(values)
    return kernels.roots(values)


def _rsqrt(mode: Portable, values: Tensor) -> Tensor:
    return 1.0 / _sqrt(mode, values)


def _sigmoid(_: Portable, values: Tensor) -> Tensor:
    _portable(values)
    return 1.0 / (1.0 + portable.exp(-values))


def _tanh(_: Portable, values: Tensor) -> Tensor:
    _portable(values)
    square = values * values
    series = ((square * (-17.0 / 315.0) + 2.0 / 15.0) * square - 1.0 / 3.0) * square * values + values
    quotient = 1.0 - 2.0 / (portable.exp(2.0 * values) + 1.0)
    return torch.where(values.abs() < _SMALL, series, quotient)


def _gelu(_: Portable, values: Tensor, *, approximate: str = "none") -> Tensor:
    _portable(values)
    if approximate != "none":
        raise NotImplementedError
    return portable.gelu(values)[0]


def _gelu_backward(_: Portable, gradient: Tensor, values: Tensor, *, approximate: str = "none") -> Tensor:
    _portable(gradient, values)
    if approximate != "none":
        raise NotImplementedError
    return gradient * portable.gelu(values)[1]


def _pow(mode: Portable, values: Any, exponent: Any) -> Any:
    if not isinstance(values, Tensor) or isinstance(exponent, Tensor):
        raise NotImplementedError
    _portable(values)
    match float(exponent):
        case 0.5:
            return _sqrt(mode, values)
        case -0.5:
            return _rsqrt(mode, values)
        case -1.0:
            return 1.0 / values
        case 1.0:
            return values.clone()
        case 2.0:
            return values * values
        case 3.0:
            return values * values * values
    raise NotImplementedError


# --- draws ------------------------------------------------------------------------------------------------------


def _uniform(mode: Portable, values: Tensor, low: float = 0.0, high: float = 1.0, *, generator: Any = None) -> Tensor:
    _portable(values)
    if generator is not None:
        raise NotImplementedError
    # 24 bits are all that a float32 below 1 can have.
    shares = torch.from_numpy((mode.drawn(values.numel()) >> np.uint64(40)).astype(np.float32)) * 2.0**-24
    return values.copy_((shares * (high - low) + low).view(values.shape))


def _normal(mode: Portable, values: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Tensor:
    """Box and Muller 1958."""
    _portable(values)
    if generator is not None:
        raise NotImplementedError
    halves = mode.drawn(2 * values.numel()).reshape(2, -1) >> np.uint64(40)
    first, turns = (torch.from_numpy(each.astype(np.float32)) * 2.0**-24 for each in halves)
    radius = _sqrt(mode, portable.log(first + 2.0**-24) * -2.0)
    return values.copy_((radius * portable.cosine(turns) * std + mean).view(values.shape))


def _bernoulli(mode: Portable, values: Tensor, p: Any = 0.5, *, generator: Any = None) -> Tensor:
    _portable(values)
    if generator is not None or isinstance(p, Tensor):
        raise NotImplementedError
    ones = (mode.drawn(values.numel()) >> np.uint64(11)) < np.uint64(round(p * 2**53))
    return values.copy_(torch.from_numpy(ones.astype(np.float32)).view(values.shape))


_FILLING = frozenset({"uniform", "normal", "bernoulli"})
"""Their first argument is what they fill."""

_OWN: dict[str, _Own] = {
    "mm": _mm,
    "addmm": _addmm,
    "bmm": _bmm,
    "baddbmm": _baddbmm,
    "mv": _mv,
    "dot": _dot,
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "var_mean": _var_mean,
    "std": _std,
    "linalg_vector_norm": _norm,
    "add": _add,
    "sub": _sub,
    "rsub": _rsub,
    "convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "exp": _exp,
    "log": _log,
    "log1p": _log1p,
    "expm1": _expm1,
    "sqrt": _sqrt,
    "rsqrt": _rsqrt,
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "gelu": _gelu,
    "gelu_backward": _gelu_backward,
    "pow": _pow,
    "uniform": _uniform,
    "normal": _normal,
    "bernoulli": _bernoulli,
}


@cache
def _apart() -> dict[str, _Own]:
    """How torch states the operations of `APART` in simpler ones; loading it takes a second."""
    from torch._decomp import get_decompositions

    named = [getattr(torch.ops.aten, name) for name in APART if hasattr(torch.ops.aten, name)]
    made: dict[Any, _Own] = get_decompositions(named)
    found: dict[str, _Own] = {}
    for overload, function in made.items():
        found.setdefault(overload._schema.name.removeprefix("aten::"), function)  # the first is the one without `out`
    return found
