"""A small decoder-only transformer over characters, as pure functions of a flat parameter vector.

Source: Vaswani et al. 2017 (arXiv 1706.03762), with normalisation in front of each sub-layer (Xiong et al. 2020).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

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


def initial(layers: tuple[Layer, ...], generator: torch.Generator) -> Tensor:
    """Normal tables and matrices, scales 1, shifts 0; float32 `[D]`."""
    vector_D = torch.zeros(layers[-1].stop)
    for layer in layers:
        if layer.name.endswith(".scale"):
            layer.view(vector_D).fill_(1.0)
        elif not layer.name.endswith(".shift"):
            layer.view(vector_D).normal_(0.0, _INITIAL_STD, generator=generator)
    return vector_D


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
