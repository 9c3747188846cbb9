"""node/training/models: the written-out gradient against torch's own layers and autograd."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from btard.node.training.datasets.mnist import Mnist
from btard.node.training.models import lenet, pooled_convolution
from btard.node.training.sampling import Shards
from btard.node.training.tasks.mnist_cnn import MnistCnn


class Reference(nn.Module):
    """The report's network from torch's layers; the dropouts' factors are handed in."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 10, 5), nn.Conv2d(10, 20, 5)
        self.fc1, self.fc2 = nn.Linear(320, 50), nn.Linear(50, 10)

    def forward(self, inputs: Tensor, channels: Tensor, hidden: Tensor) -> Tensor:
        x = functional.relu(functional.max_pool2d(self.conv1(inputs), 2))
        x = self.conv2(x) * channels.t()[:, :, None, None]
        x = functional.relu(functional.max_pool2d(x, 2)).flatten(1)
        x = functional.relu(self.fc1(x)) * hidden.t()
        result: Tensor = self.fc2(x)
        return result


def reference(parameters: Tensor) -> Reference:
    model = Reference().double()
    nn.utils.vector_to_parameters(parameters.double(), model.parameters())
    return model


def batch(size: int) -> tuple[Tensor, Tensor, lenet.Dropout]:
    generator = torch.Generator().manual_seed(size)
    inputs = torch.randn(size, 1, 28, 28, generator=generator)
    targets = torch.randint(10, (size,), generator=generator)
    factors = [torch.randint(2, (units, size), generator=generator) * 2.0 for units in (lenet.CHANNELS, lenet.HIDDEN)]
    return inputs, targets, lenet.Dropout(*factors)


def test_layout_is_the_layers_own() -> None:
    shapes = {name: tuple(values.shape) for name, values in Reference().named_parameters()}
    assert {layer.name: layer.shape for layer in lenet.LAYOUT} == shapes
    assert [layer.name for layer in lenet.LAYOUT] == list(shapes)
    assert lenet.DIMENSION == 21_840


@pytest.mark.parametrize("size", [1, 3, lenet.CHUNK - 1, lenet.CHUNK, lenet.CHUNK + 1, 256])
def test_gradient_equals_autograd_in_float64(size: int) -> None:
    parameters = lenet.initial(torch.Generator().manual_seed(1))
    inputs, targets, dropout = batch(size)
    model = reference(parameters)
    scores = model(inputs.double(), dropout.channels.double(), dropout.hidden.double())
    expected_loss = functional.cross_entropy(scores, targets)
    expected_loss.backward()
    expected = torch.cat([values.grad.flatten() for values in model.parameters() if values.grad is not None])
    gradient, loss = lenet.gradient(parameters, inputs, targets, dropout)
    assert loss == pytest.approx(expected_loss.item(), rel=1e-5)
    assert float((gradient - expected).norm() / expected.norm()) < 1e-5


def test_scores_without_dropout_equal_the_layers() -> None:
    parameters = lenet.initial(torch.Generator().manual_seed(2))
    inputs, _, _ = batch(300)
    ones = torch.ones(lenet.CHANNELS, 300, dtype=torch.float64), torch.ones(lenet.HIDDEN, 300, dtype=torch.float64)
    expected = reference(parameters)(inputs.double(), *ones).detach()
    torch.testing.assert_close(lenet.logits(parameters, inputs).t().double(), expected, rtol=1e-4, atol=1e-5)


def test_equal_maxima_hand_the_gradient_to_one_phase() -> None:
    phases = torch.zeros(2, 2, 1, 3)
    phases[1, 0, 0, 1] = phases[1, 1, 0, 1] = 5.0  # column 1: the second row is the larger
    phases[0, 1, 0, 2] = 1.0
    gradient = torch.tensor([[2.0, 3.0, -4.0]])
    handed = pooled_convolution.pool_gradient(gradient, phases).flatten(0, 1)[:, 0]
    assert handed.tolist() == [[2, 0, 0], [0, 0, -4], [0, 3, 0], [0, 0, 0]]


def test_initial_parameters_are_uniform_in_torchs_bounds() -> None:
    parameters = lenet.initial(torch.Generator().manual_seed(0))
    for weight, bias in zip(lenet.LAYOUT[::2], lenet.LAYOUT[1::2], strict=True):
        bound = 1 / math.sqrt(math.prod(weight.shape[1:]))
        for layer in (weight, bias):
            values = layer.view(parameters)
            assert 0.5 * bound < float(values.abs().max()) <= bound
        if weight.stop - weight.start > 1000:
            assert float(weight.view(parameters).std()) == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_parameters_that_overflow_give_numbers_not_exceptions() -> None:
    inputs, targets, dropout = batch(5)
    gradient, _ = lenet.gradient(torch.full((lenet.DIMENSION,), 1e30), inputs, targets, dropout)
    assert not bool(gradient.isfinite().all())


def test_the_module_of_trained_parameters_scores_as_the_function_does() -> None:
    parameters = lenet.initial(torch.Generator().manual_seed(2))
    inputs, _, _ = batch(20)
    empty = Mnist(*(torch.zeros(1, *shape, dtype=torch.uint8) for shape in ((28, 28), (), (28, 28), ())))
    model = MnistCnn(empty, 1, "cpu", Shards(1)).module(parameters)
    assert not model.training
    torch.testing.assert_close(lenet.logits(parameters, inputs).t(), model(inputs), rtol=1e-4, atol=1e-5)
    torch.manual_seed(0)
    assert not torch.allclose(model.train()(inputs), model.eval()(inputs)), "its dropouts are there"
