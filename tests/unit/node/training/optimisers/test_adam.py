"""node/training/optimisers/adam.py: torch's numbers, the paper's LAMB, and a count that an undo takes back."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from btard.node.config import Plugin, RunConfig
from btard.node.errors import ConfigError
from btard.node.protocol.settings import Optimiser
from btard.node.training.registry import OPTIMISERS, UpdateContext
from btard.node.training.schedules import LearningRate, constant, learning_rate
from btard.node.training.task import lay_out

LAYOUT = lay_out([("first", (3, 2)), ("second", (5,))])
D = 11
RATE = LearningRate(0.05, 100, constant)
GRADIENTS = list(torch.randn(12, D, generator=torch.Generator().manual_seed(1)))
START = torch.randn(D, generator=torch.Generator().manual_seed(2))


def made(name: str, **parameters: Any) -> Optimiser:
    return OPTIMISERS.get(name).target(UpdateContext(RATE, D, LAYOUT, 0.9), **parameters)


def after(ours: Optimiser, count: int = len(GRADIENTS)) -> tuple[torch.Tensor, torch.Tensor]:
    parameters_D, state_S = START, ours.initial_state(D)
    for step, gradient_D in enumerate(GRADIENTS[:count]):
        parameters_D, state_S = ours.apply(parameters_D, state_S, gradient_D.chunk(3), step)
    return parameters_D, state_S


@pytest.mark.parametrize(
    ("name", "theirs", "decay"),
    [
        ("adam", torch.optim.Adam, 0.0),
        ("adam", torch.optim.Adam, 0.1),
        ("adamw", torch.optim.AdamW, 0.1),
    ],
)
def test_the_same_numbers_as_torch(name: str, theirs: Any, decay: float) -> None:
    reference = START.clone().requires_grad_()
    optimiser = theirs([reference], lr=0.05, betas=(0.8, 0.95), eps=1e-6, weight_decay=decay)
    for gradient_D in GRADIENTS:
        reference.grad = gradient_D.clone()
        optimiser.step()
    found_D, _ = after(made(name, beta1=0.8, beta2=0.95, eps=1e-6, weight_decay=decay))
    torch.testing.assert_close(found_D, reference.detach(), rtol=1e-5, atol=1e-6)


def test_each_operation_is_rounded_by_itself() -> None:
    """docs/spec/numbers.md in numpy's float32, whose every operation is IEEE 754's; not so torch's root."""
    draws = torch.randn(8, 1000, generator=torch.Generator().manual_seed(4))
    context = UpdateContext(RATE, 1000, (), 0.9)
    ours = OPTIMISERS.get("adam").target(context, beta1=0.8, beta2=0.95, eps=1e-6)
    parameters_D, state_S = draws[0], ours.initial_state(1000)
    x, first, second = draws[0].numpy(), np.zeros(1000, np.float32), np.zeros(1000, np.float32)
    f = np.float32
    for step, gradient_D in enumerate(draws[1:]):
        parameters_D, state_S = ours.apply(parameters_D, state_S, gradient_D.chunk(3), step)
        g = gradient_D.numpy()
        first = first * f(0.8) + g * f(1 - 0.8)
        second = second * f(0.95) + g * g * f(1 - 0.95)
        scale = np.sqrt(second) / f(math.sqrt(1 - 0.95 ** (step + 1))) + f(1e-6)
        x = x - first * f(1 / (1 - 0.8 ** (step + 1))) / scale * f(RATE(step))
    assert parameters_D.numpy().tobytes() == x.tobytes()


def test_lambs_step_in_each_layer_is_as_long_as_its_parameters() -> None:
    found_D, _ = after(made("lamb"), 1)
    for layer in LAYOUT:
        moved = (layer.view(found_D) - layer.view(START)).norm()
        torch.testing.assert_close(moved, 0.05 * layer.view(START).norm(), rtol=1e-5, atol=0)


def test_lamb_moves_a_layer_of_zeros_as_adam_does() -> None:
    zeros_D = torch.zeros(D)
    found = [
        ours.apply(zeros_D, ours.initial_state(D), [GRADIENTS[0]], 0)[0]
        for ours in (made("lamb", weight_decay=0.0), made("adam", eps=1e-6))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_updates_are_counted_in_the_state_whatever_the_step(name: str) -> None:
    """After an undo steps go on, and the moments are those of fewer updates."""
    ours = made(name)
    early, late = (ours.apply(START, ours.initial_state(D), [GRADIENTS[0]], step) for step in (0, 57))
    assert all(map(torch.equal, early, late))
    assert early[1].shape == (2 * D + 1,) and early[1][-1] == 1


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_leaves_its_inputs_alone(name: str) -> None:
    ours = made(name, weight_decay=0.1)
    parameters_D, state_S, gradient_D = torch.ones(D), torch.ones(2 * D + 1), torch.ones(D)
    found = ours.apply(parameters_D, state_S, [gradient_D], 3)
    for old in (parameters_D, state_S, gradient_D):
        assert torch.equal(old, torch.ones_like(old))
        assert old.data_ptr() not in [new.data_ptr() for new in found]


@pytest.mark.parametrize("layout", [(), LAYOUT[:1], LAYOUT[1:]], ids=["none", "the first alone", "the second alone"])
def test_lamb_without_layers_is_refused(layout: Any) -> None:
    with pytest.raises(ConfigError, match="does not say them; use adamw"):
        OPTIMISERS.get("lamb").target(UpdateContext(RATE, D, layout, 0.9))


@pytest.mark.parametrize("parameters", [{"beta1": 1.0}, {"beta2": -0.1}, {"eps": -1.0}, {"weight_decay": float("inf")}])
def test_values_out_of_range_are_refused(parameters: Any) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(parameters))}=.* must be at least 0 and below"):
        made("adamw", **parameters)


def test_the_rate_is_the_schedules() -> None:
    run = RunConfig(lr=0.5, steps=10, schedule=Plugin("constant", {"warmup": 4}))
    ours = OPTIMISERS.get("adam").target(UpdateContext(learning_rate(run), D, LAYOUT, 0.9), eps=0.0)
    found_D, _ = ours.apply(START, ours.initial_state(D), [GRADIENTS[0]], 1)
    torch.testing.assert_close(START - found_D, 0.25 * GRADIENTS[0].sign(), rtol=1e-5, atol=1e-6)
