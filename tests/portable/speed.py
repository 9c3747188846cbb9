"""Portable gradients against torch's: `python -m tests.portable.speed [PAIRS]`.

Both run alternately in one process on one thread; the figure is the ratio of CPU times within a pair. Nothing is gated.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import astuple
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from btard.node.kernels import portable
from btard.node.training.models import lenet, transformer
from btard.node.training.models.resnet import ResNet18
from btard.node.training.module_task import Declared, TrainedModule
from btard.node.training.task import TaskContext
from tests.portable.digests import SHAPE, inputs, windows

IMAGES, WINDOWS = 256, 64
LARGE = transformer.Shape(characters=71, context=128, width=256, blocks=4)


def cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of one call."""
    began_s = time.process_time()
    work()
    return 1000 * (time.process_time() - began_s)


def compare(name: str, ours: Callable[[], object], torchs: Callable[[], object], pairs: int) -> None:
    """Print the medians and the median ratio with its range; one pair before them is not counted."""
    pairs_ms = [(cpu_ms(ours), cpu_ms(torchs)) for _ in range(pairs + 1)][1:]
    ratios = sorted(mine_ms / its_ms for mine_ms, its_ms in pairs_ms)
    mine_ms, its_ms = (statistics.median(each) for each in zip(*pairs_ms, strict=True))
    print(
        f"{name}: {mine_ms:.1f} ms, torch {its_ms:.1f} ms; ratio "
        f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}), {pairs} pairs",
        flush=True,
    )


def kernels(name: str, ours: Callable[[int], object], torchs: Callable[[], object], pairs: int) -> None:
    """Print it for each width of vectors."""
    for width in portable.widths():
        compare(f"{name}, vectors of {width}", partial(ours, width), torchs, pairs)


def module(name: str, model: Callable[[], nn.Module], items: Tensor, pairs: int) -> None:
    """Print the same for a model of one's own."""
    data = TensorDataset(items, torch.arange(len(items)) % 10)
    declared = Declared(name, model, functional.cross_entropy)
    tasks = (
        TrainedModule(declared, data, data, TaskContext(Path(), len(items)), each) for each in ("portable", "native")
    )
    ours, torchs = (partial(task.gradient, task.initial(0), bytes(32)) for task in tasks)
    compare(name, ours, torchs, pairs)


def main(pairs: int) -> None:
    """Compare mnist_cnn, transformer_lm, a larger one and models of one's own, the slow ones with fewer pairs."""
    torch.set_num_threads(1)
    given = inputs(IMAGES)
    kernels(
        f"mnist_cnn, {IMAGES} images",
        lambda width: portable.lenet_gradient(*given, width),
        partial(lenet.gradient, *given[:3], lenet.Dropout(*given[3:])),
        pairs,
    )
    for shape, count, times in ((SHAPE, WINDOWS, pairs), (LARGE, 8, -(-pairs // 10))):
        kernels(
            f"transformer_lm, {count} windows of {shape.context}, width {shape.width}, {shape.blocks} blocks",
            partial(portable.transformer_gradient, astuple(shape), *windows(count, shape)),
            partial(transformer.gradient, shape, shape.layout(), *windows(count, shape)),
            times,
        )
    drawn = torch.Generator().manual_seed(0)
    digits, images = torch.randn(256, 784, generator=drawn), torch.randn(32, 3, 32, 32, generator=drawn)
    module("ModuleTask, 784-64-10 with batch norm, 256 items", small, digits, pairs)
    module("ModuleTask, ResNet-18 of width 8, 32 images", partial(ResNet18, 8), images, -(-pairs // 4))


def small() -> nn.Module:
    """The network of docs/own-model.md."""
    layers = nn.Linear(784, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10)
    return nn.Sequential(*layers)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
