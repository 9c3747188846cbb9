"""The paper's task: ResNet-18 on CIFAR-10."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from btard.node.errors import ConfigError
from btard.node.training.datasets import cifar10
from btard.node.training.models.resnet import ResNet18
from btard.node.training.module_task import Declared, TrainedModule
from btard.node.training.registry import task
from btard.node.training.task import TaskContext

_PADDING = 4


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Normalised images float32 `[3, 32, 32]` with their classes, a map-style data set.

    Args:
        images: uint8 `[M, 3, 32, 32]`.
        targets: int64 `[M]`.
        augmented: each is a random crop of the zero-padded image, and every second one a mirror image; drawn from
            torch's global generator.
    """

    def __init__(self, images: Tensor, targets: Tensor, augmented: bool) -> None:
        self._images, self.targets, self._augmented = images, targets, augmented

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        image = self._images[place].float().div_(255).sub_(_MEAN).div_(_STD)
        if self._augmented:
            row, column, mirrored = (int(torch.randint(limit, ())) for limit in (2 * _PADDING + 1,) * 2 + (2,))
            _, height, width = image.shape
            image = functional.pad(image, (_PADDING,) * 4)[:, row : row + height, column : column + width]
            image = image.flip(2) if mirrored else image
        return image, self.targets[place]


_MEAN, _STD = (torch.tensor(values).view(3, 1, 1) for values in (cifar10.PIXEL_MEAN, cifar10.PIXEL_STD))


@task(
    "cifar10_resnet18",
    source="Gorbunov et al. 2021, section 4.1: ResNet-18 on CIFAR-10; He et al. 2016",
    examples=({"width": 4},),
)
def cifar10_resnet18(context: TaskContext, *, width: int = 64, arithmetic: str = "native") -> TrainedModule:
    """CIFAR-10 with ResNet-18 (11,173,962 parameters at width 64); not run here on the full data set."""
    if width < 1:
        raise ConfigError(f"task 'cifar10_resnet18': width={width} is too small; use at least 1")
    data = cifar10.load(context.data_directory)
    train = Images(data.train_images, data.train_labels.long(), augmented=True)
    test = Images(data.test_images, data.test_labels.long(), augmented=False)
    declared = Declared("cifar10_resnet18", lambda: ResNet18(width), functional.cross_entropy)
    return TrainedModule(declared, train, test, context, arithmetic)
