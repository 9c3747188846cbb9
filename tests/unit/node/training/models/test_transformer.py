"""The character model and the text that ships with it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from btard.node.config import Plugin
from btard.node.errors import ConfigError
from btard.node.training.models import transformer
from btard.node.training.optimisers.sgd import NesterovSgd
from btard.node.training.registry import build_task
from btard.node.training.schedules import LearningRate
from btard.node.training.task import TaskContext
from btard.node.training.tasks.transformer_lm import TEXT, TransformerLm

SMALL = {"context_length": 16, "width": 16, "blocks": 1}


def small(batch_size: int = 16, **changes: int) -> TransformerLm:
    made = build_task(Plugin("transformer_lm", {**SMALL, **changes}), TaskContext(Path("unused"), batch_size))
    assert isinstance(made, TransformerLm)
    return made


def test_the_text_ships_with_a_note_on_its_licence() -> None:
    assert TEXT.stat().st_size > 10_000
    assert "public domain" in (TEXT.parent / "README.md").read_text()


def test_sizes() -> None:
    task = build_task(Plugin("transformer_lm"), TaskContext(Path("unused"), 4))
    text = TEXT.read_text()
    assert task.classes == len(set(text))
    assert task.dimension == task.classes * 64 + 64 * 64 + 2 * (4 * 64 + 12 * 64 * 64) + 2 * 64
    assert task.train_size + task.test_size == pytest.approx(len(text), rel=0.02)
    assert task.test_size % 64 == 0


def test_a_prediction_sees_nothing_of_what_follows() -> None:
    shape = transformer.Shape(11, 8, 16, 2)
    layers = shape.layout()
    parameters = transformer.initial(layers, torch.Generator().manual_seed(0))
    first = torch.tensor([[1, 2, 3, 4, 5, 6, 7, 8]])
    other = torch.tensor([[1, 2, 3, 4, 5, 9, 10, 0]])
    scores, others = (transformer.logits(shape, layers, parameters, text) for text in (first, other))
    assert scores.shape == (1, 8, 11)
    torch.testing.assert_close(scores[:, :5], others[:, :5])
    assert not torch.allclose(scores[:, 5:], others[:, 5:])


def test_the_gradient_is_the_derivative_of_the_loss() -> None:
    shape = transformer.Shape(7, 5, 8, 2)
    layers = shape.layout()
    generator = torch.Generator().manual_seed(1)
    parameters = transformer.initial(layers, generator).double()
    text = torch.randint(7, (3, 6), generator=generator)

    def loss(at: Tensor) -> Tensor:
        scores = transformer.logits(shape, layers, at, text[:, :5])
        return torch.nn.functional.cross_entropy(scores.flatten(0, 1), text[:, 1:].flatten())

    (gradient,) = torch.autograd.grad(loss(parameters.requires_grad_()), parameters)
    for _ in range(3):
        along = torch.randn(len(parameters), generator=generator).double()
        with torch.no_grad():
            slope = (loss(parameters + 1e-6 * along) - loss(parameters - 1e-6 * along)) / 2e-6
        assert float(slope) == pytest.approx(float(gradient @ along), rel=1e-4)


def test_targets_are_the_characters_that_follow() -> None:
    task = small()
    seen: list[Tensor] = []

    def keep(inputs_B: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
        seen.extend((inputs_B.clone(), targets_B.clone()))
        return inputs_B, targets_B

    _, loss = task.gradient(task.initial(0), bytes(32), keep)
    inputs_BT, targets_BT = seen
    assert torch.equal(inputs_BT[:, 1:], targets_BT[:, :-1])
    assert loss == pytest.approx(math.log(task.classes), rel=0.1), "nothing is known yet"


@pytest.mark.slow
def test_it_learns() -> None:
    """150 steps of one worker: it beats the most frequent character, a space, which is right in 18 of 100 places."""
    task = small(batch_size=32)
    optimiser = NesterovSgd(LearningRate(0.3, 150), 0.9)
    parameters, state = task.initial(0), optimiser.initial_state(task.dimension)
    for step in range(150):
        gradient, loss = task.gradient(parameters, step.to_bytes(32, "big"))
        parameters, state = optimiser.apply(parameters, state, gradient, step)
    assert loss < 2.8
    assert task.evaluate(parameters, 0, task.test_size) > 0.2 * task.test_size


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"blocks": 0}, "blocks=0 is too small"), ({"width": 6}, "width=6 must be a multiple of its 4 heads"),
     ({"context_length": 2000}, "context=2000 is too long for a text of")],
    ids=["too small", "heads", "too long"],
)  # fmt: skip
def test_sizes_that_cannot_be_are_refused(changes: dict[str, int], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        small(**changes)
