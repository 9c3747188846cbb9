"""Every registered task keeps the promises of node/training/task.py, above all a gradient that repeats bit for bit."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from btard.node.config import Plugin
from btard.node.training.optimisers.sgd import NesterovSgd
from btard.node.training.registry import TASKS, build_task
from btard.node.training.schedules import LearningRate
from btard.node.training.task import BatchTransform, Task, TaskContext

SEED = bytes(range(32))
CASES = [
    pytest.param(Plugin(entry.name, dict(parameters)), marks=[pytest.mark.mnist] if "mnist" in entry.name else [],
                 id=f"{entry.name}-{dict(parameters)}")
    for entry in TASKS
    for parameters in entry.examples or ({},)
]  # fmt: skip
ELSEWHERE = """
import hashlib, sys, torch
from pathlib import Path
from btard.node.config import Plugin
from btard.node.training import environment
from btard.node.training.registry import build_task
from btard.node.training.task import TaskContext
environment.pin("cpu")
torch.manual_seed(99)
torch.randn(7) @ torch.randn(7, 5)
task = build_task(Plugin("mnist_cnn"), TaskContext(Path(sys.argv[1]), 100))
print(hashlib.sha256(task.gradient(task.initial(3), bytes(range(32)))[0].numpy().tobytes()).hexdigest())
"""


@pytest.fixture
def task(request: pytest.FixtureRequest) -> Task:
    plugin: Plugin = request.param
    fixture = {"mnist_cnn": "mnist_directory", "cifar10_resnet18": "cifar_directory"}.get(plugin.name, "tmp_path")
    return build_task(plugin, TaskContext(request.getfixturevalue(fixture), 100 if fixture != "cifar_directory" else 8))


each_task = pytest.mark.parametrize("task", CASES, indirect=True)


def bits(values: Tensor) -> str:
    return hashlib.sha256(values.contiguous().numpy().tobytes()).hexdigest()


@each_task
def test_layout_covers_the_vector_without_gaps(task: Task) -> None:
    position = 0
    for layer in task.layout:
        assert layer.start == position
        assert layer.view(torch.zeros(task.dimension)).shape == layer.shape
        position = layer.stop
    assert position == task.dimension


@each_task
def test_initial_parameters_come_from_the_seed_alone(task: Task) -> None:
    first = task.initial(0)
    assert (first.shape, first.dtype, first.device.type) == ((task.dimension,), torch.float32, "cpu")
    torch.manual_seed(1)
    assert torch.equal(task.initial(0), first)
    assert not torch.equal(task.initial(1), first)


@each_task
def test_gradient_repeats_bit_for_bit_after_other_work(task: Task) -> None:
    parameters = task.initial(0)
    gradient, loss = task.gradient(parameters, SEED)
    torch.manual_seed(1234)
    task.gradient(task.initial(7), bytes(32))
    task.evaluate(task.initial(7), 0, min(50, task.test_size))
    again, loss_again = task.gradient(parameters, SEED)
    assert bits(again) == bits(gradient)
    assert loss_again == loss
    assert again.data_ptr() != gradient.data_ptr()


@each_task
def test_gradient_does_not_depend_on_where_the_parameters_lie(task: Task) -> None:
    parameters = task.initial(0)
    expected = bits(task.gradient(parameters, SEED)[0])
    unaligned = torch.empty(task.dimension + 1)[1:].copy_(parameters)
    strided = torch.empty(task.dimension, 2)[:, 0].copy_(parameters)
    assert bits(task.gradient(unaligned, SEED)[0]) == expected
    assert bits(task.gradient(strided, SEED)[0]) == expected


@each_task
def test_gradient_leaves_parameters_and_global_randomness_alone(task: Task) -> None:
    parameters = task.initial(0)
    before, state = parameters.clone(), torch.get_rng_state()
    task.gradient(parameters, SEED)
    assert torch.equal(parameters, before)
    assert torch.equal(torch.get_rng_state(), state)


@each_task
def test_gradient_is_a_plain_finite_vector_without_negative_zeros(task: Task) -> None:
    gradient, loss = task.gradient(task.initial(0), SEED)
    assert (gradient.shape, gradient.dtype, gradient.device.type) == ((task.dimension,), torch.float32, "cpu")
    assert gradient.is_contiguous()
    assert not gradient.requires_grad
    assert bool(gradient.isfinite().all())
    assert not bool((torch.signbit(gradient) & (gradient == 0)).any())
    assert loss >= 0


@each_task
def test_another_seed_is_another_batch(task: Task) -> None:
    batches: list[Tensor] = []

    def keep(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        batches.append(inputs.clone())
        return inputs, targets

    for seed in (SEED, SEED, SEED[::-1]):
        task.gradient(task.initial(0), seed, keep)
    assert torch.equal(batches[0], batches[1])
    noiseless = task.name == "quadratic" and batches[0].shape[1] == 1
    assert noiseless or not torch.equal(batches[0], batches[2])


@each_task
def test_identity_transform_changes_nothing(task: Task) -> None:
    parameters = task.initial(0)
    plain, _ = task.gradient(parameters, SEED)
    transformed, _ = task.gradient(parameters, SEED, lambda inputs, targets: (inputs, targets))
    assert bits(plain) == bits(transformed)


@each_task
def test_slices_of_the_evaluation_add_up(task: Task) -> None:
    parameters, size = task.initial(0), task.test_size
    cuts = [0, size // 3, size // 3, size // 2, size]
    parts = [task.evaluate(parameters, start, stop) for start, stop in itertools.pairwise(cuts)]
    assert sum(parts) == task.evaluate(parameters, 0, size)


def test_quadratic_descends_to_its_optimum(tmp_path: Path) -> None:
    task = build_task(Plugin("quadratic"), TaskContext(tmp_path, 32))
    optimiser = NesterovSgd(LearningRate(0.2, 100), 0.9)
    parameters, state = task.initial(0), optimiser.initial_state(task.dimension)
    for step in range(100):
        gradient, _ = task.gradient(parameters, step.to_bytes(32, "big"))
        parameters, state = optimiser.apply(parameters, state, [gradient], step)
    assert task.evaluate(parameters, 0, task.test_size) == task.test_size


@pytest.mark.slow
@pytest.mark.mnist
def test_another_process_computes_the_same_bits(mnist_directory: Path) -> None:
    task = build_task(Plugin("mnist_cnn"), TaskContext(mnist_directory, 100))
    here = bits(task.gradient(task.initial(3), SEED)[0])
    command = [sys.executable, "-c", ELSEWHERE, str(mnist_directory)]
    there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()
    assert there == here


@pytest.mark.mnist
def test_mnist_batch_is_normalised_images_with_their_labels(mnist_directory: Path) -> None:
    task = build_task(Plugin("mnist_cnn"), TaskContext(mnist_directory, 2000))
    seen: list[Tensor] = []

    def keep(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        seen.extend((inputs.clone(), targets.clone()))
        return inputs, task.classes - 1 - targets

    flipped, _ = task.gradient(task.initial(0), SEED, keep)
    inputs, targets = seen
    assert (inputs.shape, inputs.dtype, targets.dtype) == ((2000, 1, 28, 28), torch.float32, torch.int64)
    assert abs(float(inputs.mean())) < 0.05
    assert abs(float(inputs.std()) - 1) < 0.05
    assert set(targets.tolist()) == set(range(10))
    assert not torch.equal(flipped, task.gradient(task.initial(0), SEED)[0])


@pytest.mark.mnist
def test_mnist_learns_within_a_few_steps(mnist_directory: Path) -> None:
    """Plain SGD, one worker, 60 steps: far above chance (0.1); whole runs are tested end to end elsewhere."""
    task = build_task(Plugin("mnist_cnn"), TaskContext(mnist_directory, 128))
    optimiser = NesterovSgd(LearningRate(0.05, 60), 0.9)
    parameters, state = task.initial(0), optimiser.initial_state(task.dimension)
    for step in range(60):
        gradient, _ = task.gradient(parameters, step.to_bytes(32, "big"))
        parameters, state = optimiser.apply(parameters, state, [gradient], step)
    assert task.evaluate(parameters, 0, 2000) > 0.8 * 2000


def both_arithmetics(name: str, request: pytest.FixtureRequest) -> tuple[Plugin, Plugin, Path]:
    """The task in native and in portable arithmetic, and its data directory."""
    directory = request.getfixturevalue("mnist_directory" if name == "mnist_cnn" else "tmp_path")
    native, portable = (Plugin(name, {"arithmetic": each}) for each in ("native", "portable"))
    return native, portable, directory


portable_tasks = pytest.mark.parametrize(
    "name", [pytest.param("mnist_cnn", marks=pytest.mark.mnist), pytest.param("transformer_lm")]
)


def flipped(inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return inputs, int(targets.max()) - targets


@portable_tasks
@pytest.mark.parametrize("transform", [None, flipped], ids=["honest", "flipped"])
def test_a_portable_gradient_is_the_native_one_but_for_rounding(
    name: str, transform: BatchTransform | None, request: pytest.FixtureRequest
) -> None:
    *plugins, directory = both_arithmetics(name, request)
    native, portable = (build_task(each, TaskContext(directory, 40)) for each in plugins)
    parameters_D = native.initial(3)
    expected_D, expected = native.gradient(parameters_D, SEED, transform)
    found_D, found = portable.gradient(parameters_D, SEED, transform)
    assert 0 < float((found_D - expected_D).norm() / expected_D.norm()) < 1e-6
    assert found == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(portable.initial(3), parameters_D, rtol=0, atol=2e-7)
    assert portable.evaluate(parameters_D, 0, 2000) == native.evaluate(parameters_D, 0, 2000)


@portable_tasks
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch has no other kernels here")
def test_portable_bits_do_not_depend_on_torchs_instruction_set(name: str, request: pytest.FixtureRequest) -> None:
    """As on a processor without AVX, where native bits differ: that they do shows that this could fail."""
    seen = {}
    *plugins, directory = both_arithmetics(name, request)
    for plugin in plugins:
        task = build_task(plugin, TaskContext(directory, 100))
        here = bits(task.gradient(task.initial(3), SEED)[0])
        command = [sys.executable, "-c", ELSEWHERE.replace('Plugin("mnist_cnn")', repr(plugin)), str(directory)]
        environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
        there = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300, env=environment)
        seen[plugin.parameters["arithmetic"]] = there.stdout.strip() == here
    assert seen == {"native": False, "portable": True}
