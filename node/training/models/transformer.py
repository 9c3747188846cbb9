"""A small decoder-only transformer over characters, as pure functions of a flat parameter vector.

Source: Vaswani et al. 2017 (arXiv 1706.03762), with normalisation in front of each sub-layer (Xiong et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from btard.node.kernels import portable as kernels
from btard.node.kernels import roots
from btard.node.training.task import Layer, lay_out

_INITIAL_STD = 0.05


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model.

    Args:
        characters: of the alphabet (V).
        context: characters that a prediction looks back on (T).
        width: of the residual stream, a multiple of `heads`.
        blocks: attention and feed-forward pairs.
    """

    characters: int
    context: int
    width: int
    blocks: int
    heads: int = 4

    def layout(self) -> tuple[Layer, ...]:
        """The model's tensors; the table of characters serves input and output."""
        return lay_out(self._tensors())

    def _tensors(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        width = self.width
        yield "characters", (self.characters, width)
        yield "places", (self.context, width)
        for block in range(self.blocks):
            yield f"block{block}.attention.scale", (width,)
            yield f"block{block}.attention.shift", (width,)
            yield f"block{block}.attention.inwards", (width, 3 * width)
            yield f"block{block}.attention.outwards", (width, width)
            yield f"block{block}.feed.scale", (width,)
            yield f"block{block}.feed.shift", (width,)
            yield f"block{block}.feed.inwards", (width, 4 * width)
            yield f"block{block}.feed.outwards", (4 * width, width)
        yield "head.scale", (width,)
        yield "head.shift", (width,)


def initial(layers: tuple[Layer, ...], generator: torch.Generator, *, portable: bool = False) -> Tensor:
    """Normal tables and matrices, scales 1, shifts 0; float32 `[D]`.

    Args:
        layers: the model's.
        generator: draws them.
        portable: draw the same numbers by functions that have the same bits on every processor.
    """
    vector_D = torch.zeros(layers[-1].stop)
    for layer in layers:
        if layer.name.endswith(".scale"):
            layer.view(vector_D).fill_(1.0)
        elif not layer.name.endswith(".shift"):
            if portable:
                vector_D[layer.start : layer.stop] = _normal(layer.stop - layer.start, generator).mul_(_INITIAL_STD)
            else:
                layer.view(vector_D).normal_(0.0, _INITIAL_STD, generator=generator)
    return vector_D


def _normal(size: int, generator: torch.Generator) -> Tensor:
    """Standard normal `[size]`, but for rounding what torch's `normal_` draws from 16 numbers on.

    Box and Muller's method: a group of 16 uniform numbers has 8 radii, then their 8 angles. What is left over after
    whole groups is drawn with a fresh group that ends where the numbers end.
    """
    uniform = torch.rand(max(16, size), generator=generator)
    drawn = _box_muller(uniform[: size - size % 16])
    if size % 16:
        rest = _box_muller(uniform if size < 16 else torch.rand(16, generator=generator))
        drawn = torch.cat([drawn[: max(0, size - 16)], rest[:size]])
    return drawn


def _box_muller(uniform: Tensor) -> Tensor:
    radii, turns = uniform.view(-1, 2, 8).unbind(dim=1)
    radii = roots(kernels.log(1 - radii).mul_(-2))
    # sin(2 pi u) = cos(2 pi (u - 1/4)), and u - 1/4 is exact.
    pairs = [radii * kernels.cosine(turns), radii * kernels.cosine(turns - 0.25)]
    return torch.stack(pairs, dim=1).flatten()


def gradient(
    shape: Shape, layers: tuple[Layer, ...], parameters_D: Tensor, text_BT: Tensor, targets_BT: Tensor
) -> tuple[Tensor, float]:
    """Gradient `[D]` of the mean cross entropy over all places, and its value.

    Args:
        parameters_D: `[D]`; a copy is differentiated.
        text_BT: characters, int64 `[B, T]`.
        targets_BT: the characters that follow them, int64 `[B, T]`.
    """
    here_D = parameters_D.detach().clone().requires_grad_()
    scores_BTV = logits(shape, layers, here_D, text_BT)
    loss = functional.cross_entropy(scores_BTV.flatten(0, 1), targets_BT.flatten())
    (gradient_D,) = torch.autograd.grad(loss, here_D)
    return gradient_D.detach(), float(loss.detach())


def logits(shape: Shape, layers: tuple[Layer, ...], vector_D: Tensor, text_BT: Tensor) -> Tensor:
    """Scores of the next character after every place.

    Args:
        text_BT: characters, int64 `[B, T]`, T at most the context.

    Returns:
        `[B, T, V]`.
    """
    tensors = {layer.name: layer.view(vector_D) for layer in layers}
    # A product instead of a look-up: its gradient is a sum in a fixed order on any device.
    chosen_BTV = functional.one_hot(text_BT, shape.characters).to(vector_D.dtype)
    stream = chosen_BTV @ tensors["characters"] + tensors["places"][: text_BT.shape[1]]
    for block in range(shape.blocks):
        stream = stream + _attention(_normed(stream, tensors, f"block{block}.attention"), tensors, block, shape.heads)
        hidden = functional.gelu(_normed(stream, tensors, f"block{block}.feed") @ tensors[f"block{block}.feed.inwards"])
        stream = stream + hidden @ tensors[f"block{block}.feed.outwards"]
    return _normed(stream, tensors, "head") @ tensors["characters"].t()


def _normed(stream: Tensor, tensors: Mapping[str, Tensor], name: str) -> Tensor:
    return functional.layer_norm(stream, stream.shape[-1:], tensors[f"{name}.scale"], tensors[f"{name}.shift"])


def _attention(stream: Tensor, tensors: Mapping[str, Tensor], block: int, heads: int) -> Tensor:
    """Causal self-attention."""
    batch, length, width = stream.shape
    mixed = stream @ tensors[f"block{block}.attention.inwards"]
    query, key, value = mixed.view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-1, -2) * (width // heads) ** -0.5
    future = torch.ones(length, length, dtype=torch.bool, device=stream.device).triu(1)
    weights = scores.masked_fill(future, float("-inf")).softmax(dim=-1)
    gathered: Tensor = (weights @ value).transpose(1, 2).reshape(batch, length, width)
    return gathered @ tensors[f"block{block}.attention.outwards"]
