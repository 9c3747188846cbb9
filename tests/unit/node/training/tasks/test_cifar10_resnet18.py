"""CIFAR-10 in its authors' format, and ResNet-18 on it."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from btard.launcher.run import data
from btard.node.config import Plugin
from btard.node.errors import ConfigError, DataError
from btard.node.training.datasets import cifar10
from btard.node.training.datasets.prepare_cifar10 import prepare_cifar10
from btard.node.training.models.resnet import ResNet18
from btard.node.training.module_task import TrainedModule, layout_of
from btard.node.training.optimisers.sgd import NesterovSgd
from btard.node.training.registry import build_task
from btard.node.training.schedules import LearningRate
from btard.node.training.task import TaskContext

SEED = bytes(range(32))


def test_the_reader_sees_what_an_ordinary_unpickler_sees(cifar_directory: Path) -> None:
    """torchvision reads the files by `pickle.load(file, encoding="latin1")`."""
    loaded = cifar10.load(cifar_directory)
    assert (loaded.train_images.shape, loaded.test_images.shape) == ((100, 3, 32, 32), (20, 3, 32, 32))
    with (cifar10.raw_directory(cifar_directory) / "data_batch_2").open("rb") as file:
        content = pickle.load(file, encoding="latin1")
    assert torch.equal(loaded.train_images[20:40].view(20, -1), torch.from_numpy(content["data"]))
    assert loaded.train_labels[20:40].tolist() == content["labels"]


def test_a_missing_or_changed_file_is_named_with_the_repair(cifar_directory: Path) -> None:
    path = cifar10.raw_directory(cifar_directory) / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(DataError, match=r"data_batch_3 is corrupt .* run `btard-launch data cifar10 --data-dir"):
        data.check("cifar10", cifar_directory)
    path.unlink()
    with pytest.raises(
        DataError, match=r"data_batch_3: No such file or directory; run `btard-launch data cifar10 --data-dir"
    ):
        data.check("cifar10", cifar_directory)


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("executed",)


CONTENTS = [
    ("code", Hostile(), "it asks for "),
    ("a list", [1, 2], "is not a CIFAR-10 batch"),
    ("no labels", {"data": None}, "is not a CIFAR-10 batch"),
    ("no images", {"data": 3, "labels": [1]}, "do not belong together"),
]


@pytest.mark.parametrize(("content", "words"), [row[1:] for row in CONTENTS], ids=[row[0] for row in CONTENTS])
def test_other_pickles_are_refused_unexecuted(
    content: object, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import hashlib

    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(DataError, match=words):
        cifar10.read(path, cifar10.Batch("batch", hashlib.md5(path.read_bytes()).hexdigest()))
    assert capsys.readouterr().out == ""


def test_preparing_verifies_and_moves_what_a_source_delivers(cifar_directory: Path, tmp_path: Path) -> None:
    assert not prepare_cifar10(cifar_directory), "it is there already"
    elsewhere = tmp_path / "other"
    assert prepare_cifar10(elsewhere, source=lambda scratch: cifar10.raw_directory(cifar_directory))
    assert len(cifar10.load(elsewhere).train_labels) == 100
    with pytest.raises(DataError, match=r"cannot get CIFAR-10 .* copy data_batch_1"):
        prepare_cifar10(tmp_path / "third", source=lambda scratch: scratch)


def test_the_papers_network_has_its_size() -> None:
    with torch.device("meta"):
        layers = layout_of("cifar10_resnet18", ResNet18(64))
    assert layers[-1].stop == 11_173_962
    assert sum(len(layer.shape) == 4 for layer in layers) == 20


def test_the_network_is_the_published_one() -> None:
    """torchvision's blocks are an independent form of the same network; tensors are paired in their order."""
    import torchvision.models.resnet as published

    theirs = published.ResNet(published.BasicBlock, [2, 2, 2, 2], num_classes=10)
    theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False), torch.nn.Identity()
    ours = ResNet18(64)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.data.copy_(other.data)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arithmetic", ["native", "portable"])
def test_the_gradient_is_the_derivative_of_the_loss(arithmetic: str, cifar_directory: Path) -> None:
    """Against the same network in float64, on the batch that was drawn."""
    task = build_task(
        Plugin("cifar10_resnet18", {"width": 2, "arithmetic": arithmetic}), TaskContext(cifar_directory, 8)
    )
    assert isinstance(task, TrainedModule)
    batch: list[Tensor] = []

    def keep(inputs_B: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
        batch[:] = inputs_B.clone(), targets_B.clone()
        return inputs_B, targets_B

    parameters_D = task.initial(1)
    gradient_D, loss = task.gradient(parameters_D, SEED, keep)
    network = ResNet18(2).double()
    for layer, parameter in zip(task.layout, network.parameters(), strict=True):
        parameter.data.copy_(layer.view(parameters_D))
    expected = functional.cross_entropy(network(batch[0].double()), batch[1])
    expected.backward()
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5)
    slopes_D = torch.cat([each.grad.flatten() for each in network.parameters() if each.grad is not None])
    norm = torch.linalg.vector_norm
    assert norm(gradient_D - slopes_D) <= 1e-5 * norm(slopes_D)
    assert task.foreign == frozenset()


@pytest.mark.slow
def test_it_learns(cifar_directory: Path) -> None:
    """Red tells the class: plain SGD, one worker, gets far above chance (0.1)."""
    task = build_task(Plugin("cifar10_resnet18", {"width": 4}), TaskContext(cifar_directory, 24))
    optimiser = NesterovSgd(LearningRate(0.05, 40), 0.9)
    parameters, state = task.initial(0), optimiser.initial_state(task.dimension)
    for step in range(40):
        gradient, _ = task.gradient(parameters, step.to_bytes(32, "big"))
        parameters, state = optimiser.apply(parameters, state, gradient, step)
    assert task.evaluate(parameters, 0, 20) >= 8


def test_batches_are_cropped_and_mirrored_images_with_their_labels(cifar_directory: Path) -> None:
    task = build_task(Plugin("cifar10_resnet18", {"width": 1}), TaskContext(cifar_directory, 64))
    seen: list[Tensor] = []

    def keep(inputs_B: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
        seen.extend((inputs_B.clone(), targets_B.clone()))
        return inputs_B, targets_B

    task.gradient(task.initial(0), SEED, keep)
    inputs_B, targets_B = seen
    assert (inputs_B.shape, inputs_B.dtype, targets_B.dtype) == ((64, 3, 32, 32), torch.float32, torch.int64)
    red_B = (25 * targets_B / 255 - cifar10.PIXEL_MEAN[0]) / cifar10.PIXEL_STD[0]
    torch.testing.assert_close(inputs_B[:, 0, 16, 16], red_B)
    assert len({tuple(each) for each in (inputs_B[:, 0] == 0).flatten(1).int().tolist()}) > 16, "drawn one by one"
    assert (inputs_B[:, :, 0, :] == 0).all(dim=(1, 2)).any(), "padding shows at the upper edge of some"


def test_a_width_below_one_is_refused(cifar_directory: Path) -> None:
    with pytest.raises(ConfigError, match="width=0 is too small"):
        build_task(Plugin("cifar10_resnet18", {"width": 0}), TaskContext(cifar_directory, 2))


@pytest.mark.slow
def test_no_worker_imports_torchvision() -> None:
    code = "import sys, btard.node.worker; from btard.node.training.registry import TASKS; list(TASKS); "
    code += "print('torchvision' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
