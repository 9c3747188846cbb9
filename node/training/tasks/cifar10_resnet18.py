"""The paper's task: ResNet-18 on CIFAR-10."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from btard.node.errors import ConfigError
from btard.node.training.datasets import cifar10
from btard.node.training.models import resnet
from btard.node.training.registry import task
from btard.node.training.sampling import Shards, generator_from, generator_from_int
from btard.node.training.task import BatchTransform, TaskContext, same_data, tame

_PADDING = 4
_CALIBRATION = 512
"""Training images, evenly spaced and unchanged, whose statistics stand for the running averages of evaluation."""
_EVALUATED = 500
"""Test images in one pass."""


class Cifar10Resnet18:
    """Cross entropy on uniformly drawn mini-batches, augmented by random crops and flips."""

    name = "cifar10_resnet18"
    classes = cifar10.CLASSES

    def __init__(self, data: cifar10.Cifar10, batch_size: int, device: str, width: int, shards: Shards) -> None:
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.shards = shards
        self.layout = resnet.layout(width)
        self.dimension = self.layout[-1].stop
        self.train_size, self.test_size = len(data.train_labels), len(data.test_labels)
        self._train_images, self._train_labels = data.train_images.to(self.device), data.train_labels.to(self.device)
        self._test_images, self._test_labels = data.test_images.to(self.device), data.test_labels.to(self.device)

    def resized(self, batch_size: int) -> Cifar10Resnet18:
        """The task with batches of another size."""
        return same_data(self, batch_size)

    def initial(self, seed: int) -> Tensor:
        """Initial parameters drawn from `seed`, float32 `[D]`; see `resnet.initial`."""
        return resnet.initial(self.layout, generator_from_int(seed, "cifar10_resnet18 initial"))

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """Gradient of the mean cross entropy over the batch that `seed` draws; see `Task.gradient`.

        A `transform` sees normalised, augmented images float32 `[B, 3, 32, 32]` and labels int64 `[B]`.
        """
        generator = generator_from(seed, "cifar10_resnet18 batch")
        chosen_B = self.shards.draw(seed, self.batch_size, generator).to(self.device)
        inputs_B = _augmented(_normalised(self._train_images.index_select(0, chosen_B)), generator)
        targets_B = self._train_labels.index_select(0, chosen_B).long()
        if transform is not None:
            inputs_B, targets_B = transform(inputs_B, targets_B)
        here_D = parameters_D.detach().clone().to(self.device).requires_grad_()
        loss = functional.cross_entropy(resnet.logits(self.layout, here_D, inputs_B), targets_B)
        (gradient_D,) = torch.autograd.grad(loss, here_D)
        return tame(gradient_D.detach().cpu()), float(loss.detach())

    @torch.no_grad()
    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Number of test images of `[start, stop)` whose largest logit is the label's."""
        if start >= stop:
            return 0
        here_D = parameters_D.detach().clone().to(self.device)
        places = torch.arange(0, self.train_size, max(1, self.train_size // _CALIBRATION))[:_CALIBRATION]
        fixed_B = _normalised(self._train_images.index_select(0, places.to(self.device)))
        moments = resnet.statistics(self.layout, here_D, fixed_B)
        correct = 0
        for first in range(start, stop, _EVALUATED):
            here = slice(first, min(first + _EVALUATED, stop))
            scores = resnet.logits(self.layout, here_D, _normalised(self._test_images[here]), moments)
            correct += int((scores.argmax(dim=1) == self._test_labels[here]).sum())
        return correct


def _normalised(images_B: Tensor) -> Tensor:
    """uint8 `[B, 3, 32, 32]` to float32 of about zero mean and unit variance in each channel."""
    mean, std = (torch.tensor(values, device=images_B.device).view(3, 1, 1)
                 for values in (cifar10.PIXEL_MEAN, cifar10.PIXEL_STD))  # fmt: skip
    return images_B.float().div_(255).sub_(mean).div_(std)


def _augmented(images_B: Tensor, generator: torch.Generator) -> Tensor:
    """A crop of every zero-padded image and a mirror image of every second one, by chance."""
    count, _, height, width = images_B.shape
    offsets_B = torch.randint(2 * _PADDING + 1, (count, 2), generator=generator).tolist()
    flips_B = torch.rand(count, generator=generator).lt(0.5).tolist()
    padded_B = functional.pad(images_B, (_PADDING,) * 4)
    result_B = torch.empty_like(images_B)
    for place, ((row, column), flip) in enumerate(zip(offsets_B, flips_B, strict=True)):
        crop = padded_B[place, :, row : row + height, column : column + width]
        result_B[place] = crop.flip(2) if flip else crop
    return result_B


@task(
    "cifar10_resnet18",
    source="Gorbunov et al. 2021, section 4.1: ResNet-18 on CIFAR-10; He et al. 2016",
    examples=({"width": 4},),
)
def cifar10_resnet18(context: TaskContext, *, width: int = 64) -> Cifar10Resnet18:
    """CIFAR-10 with ResNet-18 (11,173,962 parameters at width 64); not run here on the full data set."""
    if width < 1:
        raise ConfigError(f"task 'cifar10_resnet18': width={width} is too small; use at least 1")
    data = cifar10.load(context.data_directory)
    return Cifar10Resnet18(data, context.batch_size, context.device, width, context.shards(data.train_labels))
