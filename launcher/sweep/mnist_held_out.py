"""MNIST with a validation set: trained on the first 50,000 training images, tested on the last 10,000 of them.

Loaded by path, as with `--import`, by the runs of a plan that chooses something by accuracy: the test images stay for
those that it publishes.
"""

from __future__ import annotations

from btard.node.kernels import portable
from btard.node.training.datasets import mnist
from btard.node.training.registry import task
from btard.node.training.task import TaskContext
from btard.node.training.tasks.mnist_cnn import MnistCnn

HELD_OUT = 10_000


@task("mnist_held_out", source="this project; the network of the report, section 4")
def mnist_held_out(context: TaskContext, *, arithmetic: str = "native") -> MnistCnn:
    """The report's network on MNIST without its test images: 10,000 training images are held out in their place."""
    is_portable = portable.chosen(arithmetic, "mnist_held_out")
    given = mnist.load(context.data_directory)
    images, labels = given.train_images, given.train_labels
    data = mnist.Mnist(images[:-HELD_OUT], labels[:-HELD_OUT], images[-HELD_OUT:], labels[-HELD_OUT:])
    return MnistCnn(data, context.batch_size, context.device, context.shards(data.train_labels), is_portable)
