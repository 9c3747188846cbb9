"""The main job in portable arithmetic on a handful of made-up images, for a process that has no data."""

from __future__ import annotations

import torch

from btard.node.build import fingerprint_of
from btard.node.config import Plugin, RunConfig
from btard.node.training.datasets.mnist import Mnist
from btard.node.training.sampling import Shards
from btard.node.training.tasks.mnist_cnn import MnistCnn


def printed() -> bytes:
    """This process's fingerprint for it."""
    images = torch.arange(20 * 784).remainder(251).to(torch.uint8).view(20, 28, 28)
    labels = torch.arange(20).remainder(10).to(torch.uint8)
    task = MnistCnn(Mnist(images, labels, images, labels), 17, "cpu", Shards(20), "portable")
    portable = Plugin("mnist_cnn", {"arithmetic": "portable"})
    return fingerprint_of(RunConfig(task=portable, batch_size=17), task)
