"""ResNet-18 in its form for 32 x 32 images.

Source: He et al. 2016 (arXiv 1512.03385), with the 3 x 3 stem without pooling that is usual for CIFAR.
"""

from __future__ import annotations

from torch import Tensor, nn

CLASSES = 10
_STAGES = ((1, 1), (2, 2), (4, 2), (8, 2))
"""Width factor and stride of each stage of two blocks."""


class ResNet18(nn.Module):
    """Images `[B, 3, 32, 32]` to class scores `[B, 10]`; a width of 64 gives 11,173,962 parameters.

    Convolutions are drawn He-normal (fan out).
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        blocks, before = list[nn.Module](), width
        for factor, stride in _STAGES:
            blocks += [_Block(before, factor * width, stride), _Block(factor * width, factor * width, 1)]
            before = factor * width
        self.stem, self.blocks = _convolution(3, width, 3, 1), nn.Sequential(*blocks)
        self.head = nn.Linear(before, CLASSES)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images_B: Tensor) -> Tensor:
        """Class scores."""
        scores_B: Tensor = self.head(self.blocks(self.stem(images_B).relu()).mean(dim=(2, 3)))
        return scores_B


class _Block(nn.Module):
    """Two convolutions beside a shortcut, which is one too where the size changes."""

    def __init__(self, before: int, channels: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = _convolution(before, channels, 3, stride), _convolution(channels, channels, 3, 1)
        changes = stride != 1 or before != channels
        self.shortcut = _convolution(before, channels, 1, stride) if changes else nn.Identity()

    def forward(self, inputs_B: Tensor) -> Tensor:
        sum_B: Tensor = self.second(self.first(inputs_B).relu()) + self.shortcut(inputs_B)
        return sum_B.relu()


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Sequential:
    """Convolution and normalisation."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
