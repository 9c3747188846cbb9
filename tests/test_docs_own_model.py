"""The examples of docs/own-model.md run as they stand, on small stand-ins for the published data."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision.datasets

from btard.node.config import Plugin, RunConfig
from btard.node.training import registry
from btard.node.training.registry import TASKS
from btard.node.training.task import Task, TaskContext
from btard.node.verify.audit import save_model
from tests.imports import ROOT

PAGE = (ROOT / "docs" / "own-model.md").read_text(encoding="utf-8")
FASHION, RESNET, LOOP, LOADED, SAVED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
"""Its blocks."""


pytestmark = pytest.mark.usefixtures("scratch")


def fashion(folder: Path) -> None:
    """FashionMNIST's raw files with a few pictures, dark ones and bright ones."""
    raw = folder / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 40), ("t10k", 20)):
        labels = torch.arange(count) % 10
        images = (25 * labels.view(-1, 1, 1) + torch.randint(20, (count, 28, 28))).to(torch.uint8)
        (raw / f"{part}-images-idx3-ubyte").write_bytes(
            struct.pack(">IIII", 2051, count, 28, 28) + bytes(images.numpy())
        )
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, count) + bytes(labels.to(torch.uint8).numpy())
        )


def cifar(folder: Path, train: bool, transform: Any) -> Any:
    """Random pictures of CIFAR-10's size, augmented as the example says."""
    return torchvision.datasets.FakeData(12, (3, 32, 32), 10, transform=transform, random_offset=int(train))


def made_twice(text: str, name: str, folder: Path) -> tuple[Task, Task]:
    """A block's task, as two peers make it."""
    exec(text, {})
    first, second = (TASKS.get(name).target(TaskContext(folder, 4)) for _ in range(2))
    return first, second


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "name", "classes", "dimension"),
    [(FASHION, "fashion", 10, 784 * 64 + 64 + 128 + 640 + 10), (RESNET, "resnet18", 10, 11_181_642)],
    ids=["FashionMNIST", "torchvision's ResNet-18"],
)
def test_two_peers_compute_the_same(
    text: str, name: str, classes: int, dimension: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fashion(tmp_path)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", cifar)
    one, other = made_twice(text, name, tmp_path)
    parameters_D = one.initial(3)
    assert (one.classes, one.dimension) == (classes, dimension) and torch.equal(parameters_D, other.initial(3))
    other.gradient(parameters_D, b"\x01" * 32)
    (one_D, loss), (other_D, other_loss) = (each.gradient(parameters_D, b"\x02" * 32) for each in (one, other))
    assert torch.equal(one_D, other_D) and loss == other_loss and float(one_D.norm()) > 0
    assert one.evaluate(parameters_D, 0, 10) == other.evaluate(parameters_D, 0, 10)


@pytest.mark.slow
def test_a_saved_model_is_loaded_without_the_package(tmp_path: Path) -> None:
    fashion(tmp_path)
    found: dict[str, Any] = {"torch": torch}
    exec(FASHION, found)
    task = TASKS.get("fashion").target(TaskContext(tmp_path, 4))
    parameters_D, where = task.initial(3), tmp_path / "parameters.f32"
    where.write_bytes(parameters_D.numpy().tobytes())
    save_model(RunConfig(task=Plugin("fashion"), batch_size=4), tmp_path, where, tmp_path / "model.pt")
    exec(re.sub(r'"runs/[^"]*"', repr(str(tmp_path / "model.pt")), SAVED), found)
    assert int(found["model"][2].num_batches_tracked) > 0
    inputs = torch.rand(4, 1, 28, 28)
    assert torch.equal(found["model"](inputs), task.module(parameters_D)(inputs))


def test_the_example_is_ten_lines_with_its_imports_and_the_readme_has_it_too() -> None:
    assert len([line for line in FASHION.splitlines() if line]) <= 10
    assert f"```python\n{FASHION}```" in (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_training_loop_bans_both_attackers_and_its_run_is_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "SERVED", {})
    found: dict[str, Any] = {}
    exec(LOOP, found)
    done = found["session"].run
    assert sorted(ban.peer for ban in done.bans) == sorted(done.roles) and found["session"].report.wrong == 0
    exec(re.sub(r'"runs/[^"]*"', repr(str(done.path)), LOADED), found)
    assert len(found["frame"]) >= 41 and found["weights"].keys() == found["network"].state_dict().keys()
