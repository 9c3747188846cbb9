"""ResNet-18 in its form for 32 x 32 images, as pure functions of a flat parameter vector.

Batch normalisation has no buffers: in training it uses the batch's own statistics, and for evaluation `statistics`
computes them afresh from a fixed set of images. So nothing but parameters and seed decides a gradient, and there is no
hidden state that peers would have to agree on.

Source: He et al. 2016 (arXiv 1512.03385), with the 3 x 3 stem without pooling that is usual for CIFAR.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from btard.node.training.task import Layer, lay_out

CLASSES = 10
_STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
"""Width factor and stride of each stage of two blocks."""
_NORM_EPS = 1e-5

Moments = list[tuple[Tensor, Tensor]]
"""Mean and variance of each normalisation's channels, in the order in which they come."""


def layout(width: int) -> tuple[Layer, ...]:
    """The model's tensors; a width of 64 gives 11,173,962 parameters."""
    return lay_out(_shapes(width))


def _shapes(width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _convolution("stem", 3, width, 3)
    before = width
    for stage, (factor, stride) in enumerate(_STAGES):
        channels = factor * width
        for block in range(2):
            name = f"stage{stage}.block{block}"
            yield from _convolution(f"{name}.first", before, channels, 3)
            yield from _convolution(f"{name}.second", channels, channels, 3)
            if block == 0 and (stride != 1 or before != channels):
                yield from _convolution(f"{name}.shortcut", before, channels, 1)
            before = channels
    yield "head.weight", (CLASSES, before)
    yield "head.bias", (CLASSES,)


def _convolution(name: str, inputs: int, outputs: int, kernel: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    yield f"{name}.scale", (outputs,)
    yield f"{name}.shift", (outputs,)


def initial(layers: Sequence[Layer], generator: torch.Generator) -> Tensor:
    """He-normal convolutions (fan out), scales 1, shifts 0, a uniform head; float32 `[D]`."""
    vector_D = torch.zeros(layers[-1].stop)
    for layer in layers:
        tensor = layer.view(vector_D)
        if layer.name.endswith(".scale"):
            tensor.fill_(1.0)
        elif len(layer.shape) == 4:
            fan_out = layer.shape[0] * layer.shape[2] * layer.shape[3]
            tensor.normal_(0.0, (2.0 / fan_out) ** 0.5, generator=generator)
        elif layer.name == "head.weight":
            bound = layer.shape[1] ** -0.5
            tensor.uniform_(-bound, bound, generator=generator)
    return vector_D


def logits(layers: Sequence[Layer], vector_D: Tensor, images_B: Tensor, moments: Moments | None = None) -> Tensor:
    """Class scores `[B, 10]`.

    Args:
        images_B: normalised images `[B, 3, 32, 32]`.
        moments: what to normalise by; None: the batch's own statistics.
    """
    return _Pass(layers, vector_D, iter(moments) if moments is not None else None).run(images_B)


def statistics(layers: Sequence[Layer], vector_D: Tensor, images_B: Tensor) -> Moments:
    """The statistics of a batch in every normalisation, each computed on what the ones before it made of it."""
    done = _Pass(layers, vector_D, None)
    done.run(images_B)
    return done.seen


class _Pass:
    """One forward pass."""

    def __init__(self, layers: Sequence[Layer], vector_D: Tensor, moments: Iterator[tuple[Tensor, Tensor]] | None):
        self.seen: Moments = []
        self._tensors = {layer.name: layer.view(vector_D) for layer in layers}
        self._moments = moments

    def run(self, images_B: Tensor) -> Tensor:
        hidden = self._convolve("stem", images_B, 1).relu()
        for stage, (_, stride) in enumerate(_STAGES):
            for block in range(2):
                hidden = self._block(f"stage{stage}.block{block}", hidden, stride if block == 0 else 1)
        return hidden.mean(dim=(2, 3)) @ self._tensors["head.weight"].t() + self._tensors["head.bias"]

    def _block(self, name: str, inputs: Tensor, stride: int) -> Tensor:
        hidden = self._convolve(f"{name}.first", inputs, stride).relu()
        hidden = self._convolve(f"{name}.second", hidden, 1)
        shortcut = f"{name}.shortcut"
        passed = self._convolve(shortcut, inputs, stride) if f"{shortcut}.weight" in self._tensors else inputs
        return (hidden + passed).relu()

    def _convolve(self, name: str, inputs: Tensor, stride: int) -> Tensor:
        """Convolution and normalisation."""
        weight = self._tensors[f"{name}.weight"]
        outputs = functional.conv2d(inputs, weight, stride=stride, padding=weight.shape[-1] // 2)
        scale, shift = self._tensors[f"{name}.scale"], self._tensors[f"{name}.shift"]
        if self._moments is None:
            if not outputs.requires_grad:
                variance, mean = torch.var_mean(outputs, dim=(0, 2, 3), correction=0)
                self.seen.append((mean, variance))
            return functional.batch_norm(outputs, None, None, scale, shift, training=True, eps=_NORM_EPS)
        mean, variance = next(self._moments)
        return functional.batch_norm(outputs, mean, variance, scale, shift, training=False, eps=_NORM_EPS)
