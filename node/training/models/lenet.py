"""The report's MNIST network, 21,840 parameters, with its gradient written out: no autograd, no module state.

conv 10@5x5, max-pool 2, relu; conv 20@5x5, dropout of channels, max-pool 2, relu; fully connected 320-50, relu,
dropout; fully connected 50-10; cross entropy. Activations are `[channels or units, ..., B]`, batch innermost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from btard.node.training.models import pooled_convolution as pooled
from btard.node.training.task import lay_out

LAYOUT = lay_out(
    (
        ("conv1.weight", (10, 1, 5, 5)),
        ("conv1.bias", (10,)),
        ("conv2.weight", (20, 10, 5, 5)),
        ("conv2.bias", (20,)),
        ("fc1.weight", (50, 320)),
        ("fc1.bias", (50,)),
        ("fc2.weight", (10, 50)),
        ("fc2.bias", (10,)),
    )
)
DIMENSION = LAYOUT[-1].stop
CHANNELS, HIDDEN = 20, 50  # what the two dropouts switch: channels of conv2, units of fc1
KEEP = 0.5  # probability of being kept by a dropout
CHUNK = 128  # images at once: their windows still fit the caches (measured best among 16 to 256)
GPU_CHUNK = 1024  # a GPU waits for its launches: the fewer the better, up to some 100 MB of windows
_PLANES1 = (10, 2, 2, 6, 6)  # conv1's pooled output as parity planes, before the batch axis
_POSITIONS2 = 16  # 4x4 pooled positions of conv2


@dataclass(frozen=True, slots=True)
class Dropout:
    """Factors 0 or 1/KEEP that scale the units of one batch: channels `[CHANNELS, B]`, hidden `[HIDDEN, B]`."""

    channels: Tensor
    hidden: Tensor


@dataclass(frozen=True, slots=True)
class _Weights:
    """The parameter vector cut up and laid out for the products; biases as columns."""

    conv1: Tensor  # [40, 36]
    bias1: Tensor
    conv2: Tensor  # [80, 360]
    bias2: Tensor
    fc1: Tensor
    bias3: Tensor
    fc2: Tensor
    bias4: Tensor


@dataclass(frozen=True, slots=True)
class _Pass:
    """What the forward pass leaves for the backward pass; `phases` before pooling, `active` after relu and dropout."""

    windows1: Tensor  # [36, 144 B]
    phases1: Tensor  # [2, 2, 10, 144 B]
    active1: Tensor  # [10, 2, 2, 6, 6, B]
    windows2: Tensor  # [360, 16 B]
    phases2: Tensor  # [2, 2, 20, 16 B]
    active2: Tensor  # [320, B]
    active3: Tensor  # [50, B]
    logits: Tensor  # [10, B]


class Lenet(nn.Module):
    """The same network from torch's layers, for who wants to use a trained one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, CHANNELS, 5)
        self.fc1, self.fc2 = nn.Linear(320, HIDDEN), nn.Linear(HIDDEN, 10)

    def forward(self, inputs_B: Tensor) -> Tensor:
        """Scores `[B, 10]` of normalised images float32 `[B, 1, 28, 28]`."""
        hidden = functional.relu(functional.max_pool2d(self.conv1(inputs_B), 2))
        hidden = functional.dropout2d(self.conv2(hidden), 1 - KEEP, self.training)
        hidden = functional.relu(functional.max_pool2d(hidden, 2)).flatten(1)
        hidden = functional.dropout(functional.relu(self.fc1(hidden)), 1 - KEEP, self.training)
        scores: Tensor = self.fc2(hidden)
        return scores


def initial(generator: torch.Generator, *, portable: bool = False) -> Tensor:
    """Parameters `[D]`, uniform in +-1/sqrt(fan-in): what torch's layers draw by default, weights and biases alike.

    Args:
        generator: draws them.
        portable: scale and shift in two roundings; `uniform_` fuses them on some processors.
    """
    pieces = []
    bound = 0.0
    for layer in LAYOUT:
        if len(layer.shape) > 1:  # a bias has the bound of the weight before it
            bound = 1 / math.sqrt(math.prod(layer.shape[1:]))
        size = layer.stop - layer.start
        if portable:
            pieces.append(torch.rand(size, generator=generator).mul_(2 * bound).sub_(bound))
        else:
            pieces.append(torch.empty(size).uniform_(-bound, bound, generator=generator))
    return torch.cat(pieces)


@torch.no_grad()
def logits(parameters_D: Tensor, inputs_B: Tensor) -> Tensor:
    """Scores `[10, B]` of normalised images float32 `[B, 1, 28, 28]`, without dropout."""
    weights = _cut(parameters_D)
    size = _chunk(inputs_B)
    chunks = (inputs_B[start : start + size] for start in range(0, len(inputs_B), size))
    return torch.cat([_forward(weights, _batch_last(chunk), None).logits for chunk in chunks], dim=1)


@torch.no_grad()
def gradient(parameters_D: Tensor, inputs_B: Tensor, targets_B: Tensor, dropout: Dropout) -> tuple[Tensor, float]:
    """Gradient `[D]` of the mean cross entropy and its value, computed chunk by chunk and summed in that order.

    Args:
        parameters_D: float32 `[D]`, contiguous.
        inputs_B: normalised images, float32 `[B, 1, 28, 28]`.
        targets_B: labels, int64 `[B]`.
        dropout: the factors of this batch.
    """
    weights = _cut(parameters_D)
    total_D = torch.zeros_like(parameters_D)
    sums = _cut(total_D)
    batch, loss = len(targets_B), 0.0
    classes = torch.arange(len(weights.bias4), device=targets_B.device)[:, None]
    size = _chunk(inputs_B)
    for start in range(0, batch, size):
        items = slice(start, start + size)
        kept = Dropout(dropout.channels[:, items], dropout.hidden[:, items])
        done = _forward(weights, _batch_last(inputs_B[items]), kept)
        wanted = (targets_B[items] == classes).float()
        log_likelihood = done.logits.log_softmax(dim=0)
        loss -= float((log_likelihood * wanted).sum())
        _backward(weights, done, kept, log_likelihood.exp_().sub_(wanted).div_(batch), sums)
    conv1, conv2 = LAYOUT[0], LAYOUT[2]
    conv1.view(total_D).copy_(pooled.kernel_gradient(sums.conv1, 1, planes=False))
    conv2.view(total_D).copy_(pooled.kernel_gradient(sums.conv2, 10, planes=True))
    return total_D, loss / batch


def _chunk(inputs_B: Tensor) -> int:
    return CHUNK if inputs_B.device.type == "cpu" else GPU_CHUNK


def _cut(vector_D: Tensor) -> _Weights:
    """Views of a flat vector, except for the two kernels, which are copied into their matrix form."""
    weight1, bias1, weight2, bias2, fc1, bias3, fc2, bias4 = (layer.view(vector_D) for layer in LAYOUT)
    conv1, conv2 = pooled.kernel_matrix(weight1, planes=False), pooled.kernel_matrix(weight2, planes=True)
    return _Weights(conv1, bias1[:, None], conv2, bias2[:, None], fc1, bias3[:, None], fc2, bias4[:, None])


def _batch_last(inputs_B: Tensor) -> Tensor:
    """`[B, 1, 28, 28]` to contiguous `[28, 28, B]`."""
    return inputs_B.flatten(1).t().contiguous().view(*inputs_B.shape[2:], -1)


def _forward(weights: _Weights, images: Tensor, dropout: Dropout | None) -> _Pass:
    batch = images.shape[-1]
    windows1 = pooled.image_windows(images)
    phases1 = (weights.conv1 @ windows1).view(2, 2, 10, -1)
    # The bias comes after the maximum, where there is a quarter of the values: max(x) + b = max(x + b).
    active1 = pooled.pool(phases1).add_(weights.bias1).relu_().view(*_PLANES1, batch)
    windows2 = pooled.plane_windows(active1)
    phases2 = (weights.conv2 @ windows2).view(2, 2, CHANNELS, -1)
    active2 = pooled.pool(phases2).add_(weights.bias2).relu_()
    if dropout is not None:  # its factors are not negative, so it commutes with pooling and relu
        active2.view(CHANNELS, _POSITIONS2, batch).mul_(dropout.channels[:, None])
    active2 = active2.view(-1, batch)
    active3 = torch.addmm(weights.bias3, weights.fc1, active2).relu_()
    if dropout is not None:
        active3.mul_(dropout.hidden)
    scores = torch.addmm(weights.bias4, weights.fc2, active3)
    return _Pass(windows1, phases1, active1, windows2, phases2, active2, active3, scores)


def _backward(weights: _Weights, done: _Pass, dropout: Dropout, logits_gradient: Tensor, sums: _Weights) -> None:
    """Add the gradients of one chunk to `sums`.

    An activation is positive where relu and dropout let it through: its sign is the mask of both.
    """
    batch = logits_gradient.shape[1]
    sums.fc2.addmm_(logits_gradient, done.active3.t())
    sums.bias4.add_(logits_gradient.sum(dim=1, keepdim=True))

    hidden = (weights.fc2.t() @ logits_gradient).mul_(dropout.hidden).mul_(done.active3.sign())
    sums.fc1.addmm_(hidden, done.active2.t())
    sums.bias3.add_(hidden.sum(dim=1, keepdim=True))

    flat = (weights.fc1.t() @ hidden).mul_(done.active2.sign())
    pooled2 = flat.view(CHANNELS, _POSITIONS2, batch).mul_(dropout.channels[:, None]).view(CHANNELS, -1)
    sums.bias2.add_(pooled2.sum(dim=1, keepdim=True))
    phases2 = pooled.pool_gradient(pooled2, done.phases2).view(4 * CHANNELS, -1)
    sums.conv2.addmm_(phases2, done.windows2.t())

    planes = pooled.plane_windows_gradient(weights.conv2.t() @ phases2, done.active1.shape)
    pooled1 = planes.mul_(done.active1.sign()).view(10, -1)
    sums.bias1.add_(pooled1.sum(dim=1, keepdim=True))
    phases1 = pooled.pool_gradient(pooled1, done.phases1).view(40, -1)
    sums.conv1.addmm_(phases1, done.windows1.t())
