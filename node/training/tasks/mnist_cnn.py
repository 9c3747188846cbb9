"""The report's task: its convolutional network on MNIST."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from btard.node.kernels import portable
from btard.node.training.datasets import mnist
from btard.node.training.models import lenet
from btard.node.training.registry import task
from btard.node.training.sampling import Shards, generator_from, generator_from_int
from btard.node.training.task import BatchTransform, TaskContext, same_data, state_dict, tame


class MnistCnn:
    """The network of `models/lenet.py` with cross entropy, on uniformly drawn mini-batches of MNIST.

    In portable arithmetic everything that a gradient is made of has the same bits on every processor: torch draws
    integers and rounds elementwise, one operation at a time; all else is `kernels/portable.py`.
    """

    name = "mnist_cnn"
    classes = mnist.CLASSES
    layout = lenet.LAYOUT
    dimension = lenet.DIMENSION

    def __init__(
        self, data: mnist.Mnist, batch_size: int, device: str, shards: Shards, is_portable: bool = False
    ) -> None:
        self._portable = is_portable
        self.batch_size = batch_size
        self.device = torch.device(device)
        self.train_size = len(data.train_labels)
        self.test_size = len(data.test_labels)
        self._train_images = data.train_images.to(self.device)
        self._train_labels = data.train_labels.to(self.device)
        self.shards = shards
        self._test_images = data.test_images.to(self.device)
        self._test_labels = data.test_labels.to(self.device)

    def resized(self, batch_size: int) -> MnistCnn:
        """The task with batches of another size."""
        return same_data(self, batch_size)

    def initial(self, seed: int) -> Tensor:
        """Initial parameters drawn from `seed`, float32 `[D]`; see `lenet.initial`."""
        return lenet.initial(generator_from_int(seed, "mnist_cnn initial"), portable=self._portable)

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """Gradient of the mean cross entropy over the batch that `seed` draws; see `Task.gradient`.

        A `transform` sees normalised images float32 `[B, 1, 28, 28]` and labels int64 `[B]`.
        """
        generator = generator_from(seed, "mnist_cnn batch")
        chosen_B = self.shards.draw(seed, self.batch_size, generator).to(self.device)
        dropout = lenet.Dropout(self._kept(lenet.CHANNELS, generator), self._kept(lenet.HIDDEN, generator))
        inputs_B = _normalised(self._train_images.index_select(0, chosen_B))
        targets_B = self._train_labels.index_select(0, chosen_B).long()
        if transform is not None:
            inputs_B, targets_B = transform(inputs_B, targets_B)
        # A copy: views of a caller's buffer may be unaligned, and some kernels round differently then.
        here_D = parameters_D.detach().clone().to(self.device)
        if self._portable:
            gradient_D, loss = portable.lenet_gradient(here_D, inputs_B, targets_B, dropout.channels, dropout.hidden)
        else:
            gradient_D, loss = lenet.gradient(here_D, inputs_B, targets_B, dropout)
        return tame(gradient_D).cpu(), loss

    def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
        """Number of test images of `[start, stop)` whose largest logit is the label's."""
        if start >= stop:
            return 0
        here_D = parameters_D.detach().clone().to(self.device)
        inputs_B = _normalised(self._test_images[start:stop])
        scores = portable.lenet_scores(here_D, inputs_B).t() if self._portable else lenet.logits(here_D, inputs_B)
        return int((scores.argmax(dim=0) == self._test_labels[start:stop]).sum())

    def module(self, parameters_D: Tensor) -> nn.Module:
        """The network from torch's layers with these parameters, set to evaluate; it takes images as a `transform`
        sees them."""
        model = lenet.Lenet()
        model.load_state_dict(state_dict(self.layout, parameters_D))
        return model.eval()

    def _kept(self, units: int, generator: torch.Generator) -> Tensor:
        """Dropout factors `[units, B]`: 0 with probability 1/2, else 2."""
        drawn = torch.rand(units, self.batch_size, generator=generator)
        return drawn.lt(lenet.KEEP).float().div_(lenet.KEEP).to(self.device)


def _normalised(images_B: Tensor) -> Tensor:
    """uint8 `[B, 28, 28]` to float32 `[B, 1, 28, 28]` of about zero mean and unit variance."""
    scaled = images_B.unsqueeze(1).float()
    return scaled.mul_(1 / (255 * mnist.PIXEL_STD)).sub_(mnist.PIXEL_MEAN / mnist.PIXEL_STD)


@task(
    "mnist_cnn",
    source="the report, section 4: 21,840 parameters, batch 256 per worker",
    examples=({}, {"arithmetic": "portable"}),
)
def mnist_cnn(context: TaskContext, *, arithmetic: str = "native") -> MnistCnn:
    """MNIST with the report's convolutional network (test accuracy about 0.985 after 900 steps)."""
    is_portable = portable.chosen(arithmetic, "mnist_cnn")
    data = mnist.load(context.data_directory)
    return MnistCnn(data, context.batch_size, context.device, context.shards(data.train_labels), is_portable)
