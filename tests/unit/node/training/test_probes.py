"""node/training/probes.py: digests of what a run computes."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import torch
from torch import Tensor

from btard.node.aggregation.registry import RULES
from btard.node.build import environment_of, task_of
from btard.node.config import Plugin, RunConfig
from btard.node.training import probes
from btard.node.training.registry import OPTIMISERS
from btard.node.training.task import BatchTransform, Resizable, Task
from btard.node.training.tasks.quadratic import Quadratic

RUN = RunConfig(peers=4, task=Plugin("quadratic"), batch_size=16)


def names(found: probes.Probes) -> list[str]:
    return [name for name, _ in found]


def quadratic() -> Task:
    return task_of(RUN, Path("unused"))


def test_a_run_is_probed_by_name_and_each_time_alike() -> None:
    found = environment_of(RUN, quadratic())
    assert names(found.probes) == [
        "matrix products and exp",
        "the initial parameters of quadratic",
        *(f"gradient of quadratic, probe {turn} (batch of {size})" for turn, size in ((1, 2), (2, 7), (3, 16))),
        "the update of sgd",
        "the aggregate of centered_clip",
    ]
    assert environment_of(RUN, quadratic()) == found
    assert names(environment_of(RUN, None).probes) == [
        "matrix products and exp",
        "the update of sgd",
        "the aggregate of centered_clip",
    ]


class OffByOneBit(Quadratic):
    """The third entry of each gradient is the next number."""

    def gradient(
        self, parameters_D: Tensor, seed: bytes, transform: BatchTransform | None = None
    ) -> tuple[Tensor, float]:
        """As the quadratic's, but for a bit."""
        gradient_D, loss = super().gradient(parameters_D, seed, transform)
        gradient_D[2] = torch.nextafter(gradient_D[2], torch.tensor(9.0))
        return gradient_D, loss


def test_one_bit_of_one_entry_is_another_probe() -> None:
    here, there = (environment_of(RUN, made(64, 0.1, 16)).probes for made in (Quadratic, OffByOneBit))
    unequal = [name for (name, mine), (_, theirs) in zip(here, there, strict=True) if mine != theirs]
    assert unequal == [
        f"gradient of quadratic, probe {turn} (batch of {size})" for turn, size in ((1, 2), (2, 7), (3, 16))
    ]


@pytest.mark.parametrize(
    ("dimension", "batch_size", "sizes"),
    [(64, 1, [1]), (64, 4, [2, 4]), (200_000, 256, [2, 7]), (2_000_000, 256, [2]), (30_000, 256, [2, 7, 256])],
)
def test_a_large_model_is_probed_on_small_batches(dimension: int, batch_size: int, sizes: list[int]) -> None:
    found = probes.of_gradient(Quadratic(dimension, 0.0, batch_size), 0, batch_size)
    assert [name.partition("batch of ")[2] for name in names(found)[1:]] == [f"{size})" for size in sizes]


def test_a_task_that_cannot_take_other_batches_is_probed_with_its_own() -> None:
    class Own:
        """A task by hand."""

        def __init__(self) -> None:
            made = Quadratic(64, 0.1, 3_000_000)
            self.name, self.dimension, self.initial = "own", 64, made.initial
            self.gradient = Quadratic(64, 0.1, 5).gradient

    own: Task = Own()  # type: ignore[assignment]
    assert not isinstance(own, Resizable)
    assert names(probes.of_gradient(own, 0, 3_000_000))[1:] == ["gradient of own, probe 1 (batch of 3000000)"]


def test_a_smaller_batch_leaves_the_task_as_it_is() -> None:
    task = Quadratic(64, 0.1, 16)
    before, _ = task.gradient(task.initial(0), b"x" * 32)
    assert not torch.equal(task.resized(2).gradient(task.initial(0), b"x" * 32)[0], before)
    assert torch.equal(task.gradient(task.initial(0), b"x" * 32)[0], before)


@pytest.mark.parametrize("name", [entry.name for entry in OPTIMISERS if entry.facts["portable"]])
def test_every_portable_update_is_probed_in_portable_arithmetic(name: str) -> None:
    run = msgspec.structs.replace(RUN, optimiser=Plugin(name))
    portable = Plugin("mnist_cnn", {"arithmetic": "portable"})
    found = environment_of(msgspec.structs.replace(run, task=portable), None)
    assert names(found.probes) == [f"the update of {name}"]
    assert found.probes[0] in environment_of(run, None).probes


@pytest.mark.parametrize("name", [entry.name for entry in RULES])
def test_every_rule_is_probed(name: str) -> None:
    run = msgspec.structs.replace(RUN, rule=Plugin(name), allow_weak=True)
    assert names(environment_of(run, None).probes)[-1] == f"the aggregate of {name}"
