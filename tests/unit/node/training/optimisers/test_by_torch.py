"""node/training/optimisers/by_torch.py: torch's own run of steps, cut into pure ones; what is none is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.optim import Optimizer

from btard.node.build import optimiser_of
from btard.node.config import Plugin, RunConfig
from btard.node.errors import ConfigError
from btard.node.protocol.settings import Optimiser
from btard.node.training.optimisers.by_torch import TorchOptimiser
from btard.node.training.registry import OPTIMISERS
from btard.node.training.task import lay_out

D = 13
LAYOUT = lay_out([("all", (D,))])
GRADIENTS = list(torch.randn(8, D, generator=torch.Generator().manual_seed(1)))
START = torch.randn(D, generator=torch.Generator().manual_seed(2))
CONSTANT = Plugin("constant")


pytestmark = pytest.mark.usefixtures("scratch")


def made(name: str, **parameters: Any) -> Optimiser:
    return optimiser_of(RunConfig(lr=0.05, optimiser=Plugin(name, parameters), schedule=CONSTANT), D, LAYOUT)


CASES: list[tuple[str, Callable[..., Optimizer], dict[str, Any], dict[str, Any]]] = [
    ("adadelta", torch.optim.Adadelta, {}, {}),
    ("adagrad", torch.optim.Adagrad, {"initial_accumulator_value": 0.5}, {"initial_accumulator_value": 0.5}),
    ("adamax", torch.optim.Adamax, {"beta1": 0.5}, {"betas": (0.5, 0.999)}),
    ("asgd", torch.optim.ASGD, {}, {}),
    ("nadam", torch.optim.NAdam, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    ("radam", torch.optim.RAdam, {}, {}),
    ("rmsprop", torch.optim.RMSprop, {"momentum": 0.9, "centered": True}, {"momentum": 0.9, "centered": True}),
    ("rprop", torch.optim.Rprop, {"eta1": 0.4}, {"etas": (0.4, 1.2)}),
]


@pytest.mark.parametrize(("name", "theirs", "ours", "given"), CASES, ids=[row[0] for row in CASES])
def test_the_same_bits_as_one_optimiser_that_goes_on(name: str, theirs: Any, ours: Any, given: Any) -> None:
    reference_D = START.clone().requires_grad_()
    optimiser, pure = theirs([reference_D], lr=0.05, **given), made(name, **ours)
    parameters_D, state_S = START, pure.initial_state(D)
    for step, gradient_D in enumerate(GRADIENTS):
        reference_D.grad = gradient_D.clone()
        optimiser.step()
        kept = parameters_D.clone(), state_S.clone()
        again, found = (pure.apply(parameters_D, state_S, gradient_D.chunk(2), step) for _ in range(2))
        assert all(map(torch.equal, again, found)), "another update at a second call"
        assert torch.equal(parameters_D, kept[0]) and torch.equal(state_S, kept[1]), "it changed what it was given"
        parameters_D, state_S = found
        assert torch.equal(parameters_D, reference_D.detach())


class Signs(Optimizer):
    """An optimiser of one's own."""

    def __init__(self, params: Any, lr: float = 0.1, damping: float = 0) -> None:
        super().__init__(params, {"lr": lr, "damping": damping})

    def step(self, closure: Any = None) -> None:
        """Move against the sign."""
        for group in self.param_groups:
            for each in group["params"]:
                with torch.no_grad():
                    each -= group["lr"] * each.grad.sign() / (1 + group["damping"])


class Whole(Signs):
    """It looks at all entries together."""

    def step(self, closure: Any = None) -> None:
        """Move by the normalised gradient."""
        for each in self.param_groups[0]["params"]:
            with torch.no_grad():
                each -= each.grad / each.grad.norm()


class Random(Signs):
    """It draws."""

    def step(self, closure: Any = None) -> None:
        """Move anywhere."""
        for each in self.param_groups[0]["params"]:
            with torch.no_grad():
                each -= torch.randn_like(each)


class Lists(Signs):
    """It keeps what is no vector."""

    def step(self, closure: Any = None) -> None:
        """Remember."""
        for each in self.param_groups[0]["params"]:
            self.state[each]["seen"] = [1.0]


def test_one_of_ones_own_has_its_parameters() -> None:
    TorchOptimiser("signs", Signs)
    entry = OPTIMISERS.get("signs")
    assert (entry.parameters, entry.source) == ({"damping": 0.0}, "own")
    found_D, _ = made("signs", damping=1.5).apply(START, made("signs").initial_state(D), [GRADIENTS[0]], 0)
    torch.testing.assert_close(START - found_D, 0.02 * GRADIENTS[0].sign())


REFUSED = [
    (Whole, "depends on others"),
    (torch.optim.Adafactor, "depends on others"),
    (Random, "another at a second call"),
    (Lists, "keeps 'seen', which is neither"),
    (torch.optim.LBFGS, "cannot be used: TypeError"),
    (torch.optim.SparseAdam, "cannot be used: RuntimeError"),
]


@pytest.mark.parametrize(("optimiser", "problem"), REFUSED, ids=[row[0].__name__ for row in REFUSED])
def test_what_is_no_pure_elementwise_update_is_refused(optimiser: type[Optimizer], problem: str) -> None:
    TorchOptimiser("mine", optimiser)
    with pytest.raises(ConfigError, match=f"--optimiser mine.*{problem}") as raised:
        made("mine")
    assert "\n" not in str(raised.value)


def test_a_value_that_torch_refuses_is_one_line() -> None:
    with pytest.raises(ConfigError, match=r"rmsprop cannot be used: ValueError: Invalid alpha value: -1\.0"):
        made("rmsprop", alpha=-1.0)
