"""Unlike data bans nobody: with one class for each peer gradients differ as an attacker's do, and are still true."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import TensorDataset

from btard.node.build import task_of
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.protocol.api import Banned, Finished
from btard.node.training.module_task import ModuleTask
from tests.simulation.checkers import PROMISES
from tests.simulation.stage import Stage, play, set_up

CLASSES, FEATURES = 6, 8
LABELS = torch.arange(CLASSES).repeat(20)
_CENTRES = 5 * torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(1))
_NOISE = torch.randn(len(LABELS), FEATURES, generator=torch.Generator().manual_seed(2))
BLOBS = TensorDataset(_CENTRES[LABELS] + _NOISE, LABELS)
STEPS = 24


@pytest.fixture(autouse=True)
def blobs(scratch: None) -> None:
    """A labelled task that no other test knows."""
    ModuleTask(
        "blobs", model=lambda: nn.Linear(FEATURES, CLASSES), train=BLOBS, test=BLOBS, loss=functional.cross_entropy
    )


def stage(split: Plugin, tau: float, roles: dict[int, Role] | None = None) -> Stage:
    run = RunConfig(
        task=Plugin("blobs"),
        steps=STEPS,
        batch_size=8,
        tau=tau,
        lr=0.01,
        split=split,
        delivery_bound_s=0.5,
        gradient_bound_s=1.0,
    )
    return set_up(run, roles, 0, task=task_of(run, Path("unused")))


SPLITS = [
    pytest.param(Plugin("classes", {"k": 1}), 5.0, id="one class each"),
    pytest.param(Plugin("classes", {"k": 1}), 0.1, id="one class each, all clipped"),
    pytest.param(Plugin("dirichlet", {"alpha": 0.1}), 5.0, id="dirichlet"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("split", "tau"), SPLITS)
def test_no_honest_peer_is_banned(split: Plugin, tau: float) -> None:
    """Long enough for V3 to look at half of the steps; gradients of single classes are far apart."""
    made = stage(split, tau)
    seen = play(made, PROMISES)
    assert not [each for each in seen if isinstance(each.output, Banned)]
    assert {each.node for each in seen if isinstance(each.output, Finished)} == set(range(6))
    state = made.simulation.nodes[0].peer.state
    assert state.norms.scale() is not None
    root = made.task.dimension**0.5
    norms = [norm * root for step in state.norms.steps for norm in step]
    assert (min(norms) > tau) == (tau < 1), "what is to be clipped is clipped"


def test_liars_are_banned_and_nobody_else() -> None:
    roles = dict.fromkeys((4, 5), Role((Plugin("sign_flip"),), Schedule(3, 1), (4, 5)))
    seen = play(stage(Plugin("classes", {"k": 1}), 5.0, roles), PROMISES)
    assert {each.output.peer for each in seen if isinstance(each.output, Banned)} == {4, 5}


def test_a_gradient_is_the_shards_of_its_peer_and_anybody_can_recompute_it() -> None:
    made = stage(Plugin("classes", {"k": 1}), 5.0)
    task, again = made.task, stage(Plugin("classes", {"k": 1}), 5.0).task
    parameters_D = task.initial(0)
    for peer in range(6):
        xi = bytes(range(32)) + peer.to_bytes(2, "little")
        found, other = (each.gradient(parameters_D, xi) for each in (task, again))
        assert found[0].equal(other[0]) and found[1] == other[1]
        # Cross entropy on examples of one class alone: its output is too small, all others are too large.
        bias_C = found[0][-CLASSES:]
        assert int((bias_C < 0).sum()) == 1
