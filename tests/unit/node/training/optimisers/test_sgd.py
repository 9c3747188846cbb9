"""node/training/optimisers/sgd.py: the same numbers as torch's SGD, and nothing changed in place."""

from __future__ import annotations

import pytest
import torch

from btard.node.training.optimisers.sgd import NesterovSgd
from btard.node.training.schedules import LearningRate


def gradients(steps: int, dimension: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(dimension, generator=generator) for _ in range(steps)]


@pytest.mark.parametrize("momentum", [0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 40])
def test_equals_torch_sgd_with_cosine_annealing(momentum: float, steps: int) -> None:
    start = torch.linspace(-1, 1, 17)
    reference = torch.nn.Parameter(start.clone())
    sgd = torch.optim.SGD([reference], lr=0.05, momentum=momentum, nesterov=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(sgd, T_max=steps)
    ours = NesterovSgd(LearningRate(0.05, steps), momentum)
    parameters, state = start, ours.initial_state(17)
    for step, gradient in enumerate(gradients(steps, 17)):
        reference.grad = gradient.clone()
        sgd.step()
        cosine.step()
        parameters, state = ours.apply(parameters, state, [gradient], step)
    torch.testing.assert_close(parameters, reference.detach(), rtol=1e-6, atol=1e-6)


def test_without_momentum_it_is_plain_sgd() -> None:
    gradient = torch.tensor([1.0, -2.0])
    parameters, _ = NesterovSgd(LearningRate(0.5, 10), 0.0).apply(torch.zeros(2), torch.zeros(2), [gradient], 0)
    assert parameters.tolist() == [-0.5, 1.0]


def test_leaves_its_inputs_alone() -> None:
    parameters, state, gradient = torch.ones(3), torch.ones(3), torch.ones(3)
    new_parameters, new_state = NesterovSgd(LearningRate(0.1, 10), 0.9).apply(parameters, state, [gradient], 3)
    for old in (parameters, state, gradient):
        assert torch.equal(old, torch.ones(3))
        assert old.data_ptr() not in (new_parameters.data_ptr(), new_state.data_ptr())
