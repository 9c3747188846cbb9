"""Any module and any data set as a task: gradients repeat bit for bit, and what would not is refused before the run."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from msgspec import structs
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import Dataset, TensorDataset

from btard import Experiment, ModuleTask, load_run, run
from btard.launcher.run import plan
from btard.node.errors import ConfigError, DataError, PluginError
from btard.node.training.module_task import TrainedModule
from btard.node.training.registry import TASKS
from btard.node.training.sampling import Shards
from btard.node.training.start import StartedFrom
from btard.node.training.task import TaskContext, pieces
from tests.launching import LAUNCH, environment

SEED, OTHER = b"\x07" * 32, b"\x09" * 32
CLASSES, ITEMS = 3, 40


class Net(nn.Module):
    """A small network with everything that draws or keeps something."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(64, CLASSES)
        )

    def forward(self, inputs_B: Tensor) -> Tensor:
        """Scores `[B, CLASSES]`."""
        scores: Tensor = self.layers(inputs_B)
        return scores


class Plain(nn.Module):
    """A network that neither draws nor keeps anything."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(36, CLASSES)

    def forward(self, inputs_B: Tensor) -> Tensor:
        """Scores `[B, CLASSES]`."""
        scores: Tensor = self.layer(inputs_B.flatten(1))
        return scores


class Augmented(Dataset[tuple[Tensor, int]]):
    """Images with noise and mirroring from all three global generators."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image, label = IMAGES[place], int(LABELS[place])
        if random.random() < 0.5:
            image = image.flip(2)
        return image + 0.1 * torch.randn(1, 6, 6) + float(np.random.rand()), label


def pictures(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images whose brightness tells their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    images = 0.3 * torch.randn(count, 1, 6, 6, generator=generator) + labels.view(-1, 1, 1, 1)
    return images, labels


IMAGES, LABELS = pictures(ITEMS, 1)
TRAIN, TEST = TensorDataset(IMAGES, LABELS), TensorDataset(*pictures(30, 2))


pytestmark = pytest.mark.usefixtures("scratch")


def task(model: Callable[[], nn.Module] = Net, train: Any = TRAIN, test: Any = TEST, **more: Any) -> TrainedModule:
    """It, for batches of eight."""
    loss = more.pop("loss", functional.cross_entropy)
    return ModuleTask("mine", model=model, train=train, test=test, loss=loss, **more)(TaskContext(Path(), 8))


@pytest.mark.parametrize("train", [TRAIN, Augmented()], ids=["tensors", "augmented"])
def test_a_gradient_is_a_function_of_parameters_and_seed(train: Any) -> None:
    """Whatever the global generators say, whatever was computed before, and in another object of the task."""
    made = task(train=train)
    parameters_D = made.initial(1)
    first_D, loss = made.gradient(parameters_D, SEED)
    torch.manual_seed(99)
    random.seed(99)
    made.evaluate(parameters_D, 0, 5)
    other_D, _ = made.gradient(parameters_D, OTHER)
    TASKS._entries.pop("mine")
    again_D, loss_again = task(train=train).gradient(parameters_D, SEED)
    assert torch.equal(first_D, again_D) and loss == loss_again
    assert not torch.equal(first_D, other_D)


class Single(Dataset[tuple[Tensor, Tensor]]):
    """The items of TRAIN, read one by one."""

    def __len__(self) -> int:
        return ITEMS

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        return IMAGES[place], LABELS[place]


def test_a_batch_of_single_items_is_that_of_a_tensor_data_set_with_items_drawn_twice() -> None:
    made = task(model=Plain)
    TASKS._entries.pop("mine")
    single, parameters_D = task(model=Plain, train=Single()), made.initial(1)
    seeds = [bytes([number]) * 32 for number in range(20)]
    assert any(len(made._drawn(seed).unique()) < 8 for seed in seeds)
    for seed in seeds:
        assert torch.equal(single.gradient(parameters_D, seed)[0], made.gradient(parameters_D, seed)[0])


class Uneven(Augmented):
    """Images of which one is smaller than the others."""

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        image, label = super().__getitem__(place)
        return (image[:, :5] if place == 17 else image), label


def test_an_item_that_fits_into_no_batch_is_named() -> None:
    made = task(train=Uneven())
    parameters_D = made.initial(1)
    problem = r"items (\d+ and 17|17 and \d+) of a data set do not go into one batch: .*; give all items one form$"
    with pytest.raises(PluginError, match=problem):
        for number in range(40):
            made.gradient(parameters_D, bytes([number]) * 32)


def test_the_global_generators_go_on_where_they_were() -> None:
    made = task(train=Augmented())
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = (torch.rand(1).item(), random.random(), np.random.rand())
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    made.gradient(made.initial(1), SEED)
    made.evaluate(made.initial(1), 0, 3)
    assert (torch.rand(1).item(), random.random(), np.random.rand()) == expected


def test_a_module_of_trained_parameters_answers_as_an_evaluation_does() -> None:
    made = task()
    parameters_D = made.initial(4)
    trained, (inputs_B, targets_B) = made.module(parameters_D), TEST.tensors
    assert torch.equal(nn.utils.parameters_to_vector(trained.parameters()), parameters_D) and not trained.training
    right = int((trained(inputs_B).argmax(dim=1) == targets_B).sum())
    assert right == made.evaluate(parameters_D, 0, made.test_size)
    assert float(trained.state_dict()["layers.1.running_mean"].abs().sum()) > 0, "batch norm has its statistics"


def test_it_is_the_gradient_that_torch_computes_without_us() -> None:
    made, seen = task(model=Plain), []

    def keep(inputs_B: Tensor, targets_B: Tensor) -> tuple[Tensor, Tensor]:
        seen.append((inputs_B, targets_B))
        return inputs_B, targets_B

    parameters_D = made.initial(3)
    gradient_D, loss = made.gradient(parameters_D, SEED, keep)
    model, ((inputs_B, targets_B),) = Plain(), seen
    with torch.no_grad():
        for layer, each in zip(made.layout, model.parameters(), strict=True):
            each.copy_(layer.view(parameters_D))
    plain = functional.cross_entropy(model(inputs_B), targets_B)
    plain.backward()
    assert float(plain.detach()) == loss and len(inputs_B) == 8
    torch.testing.assert_close(gradient_D, torch.cat([each.grad.flatten() for each in model.parameters()]))  # type: ignore[union-attr]


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: no portable arithmetic")
def test_portable_arithmetic_repeats_and_is_near_torchs() -> None:
    native = task(model=Plain)
    declared = ModuleTask("yours", model=Plain, train=TRAIN, test=TEST, loss=functional.cross_entropy)
    made = declared(TaskContext(Path(), 8), "portable")
    parameters_D = made.initial(1)
    assert not torch.equal(parameters_D, native.initial(1)), "drawn by other rules"
    gradient_D, loss = made.gradient(parameters_D, SEED)
    near_D, near = native.gradient(parameters_D, SEED)
    torch.testing.assert_close(gradient_D, near_D)
    assert loss == pytest.approx(near)
    made.evaluate(parameters_D, 0, 5)
    again_D, loss_again = made.resized(8).gradient(parameters_D, SEED)
    assert torch.equal(gradient_D, again_D) and loss == loss_again
    assert made.evaluate(parameters_D, 0, 30) == native.evaluate(parameters_D, 0, 30)
    assert made.foreign == native.foreign == frozenset()


SUMMING = """
import btard, torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

class Summing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(36, 3)
    def forward(self, inputs):
        return self.layer(inputs.cumsum(1))

data = TensorDataset(torch.arange(40 * 36).view(40, 36) % 7 / 8, torch.arange(40) % 3)
btard.ModuleTask("summing", model=Summing, train=data, test=data, loss=F.cross_entropy)
"""


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here: no portable arithmetic")
def test_a_layer_without_a_portable_form_is_named_before_the_run(tmp_path: Path) -> None:
    file = tmp_path / "summing.py"
    file.write_text(SUMMING)
    chosen = Experiment(task="summing", imports=(str(file),), backend="simulated", batch_size=8)
    made = plan.make(structs.replace(chosen, arithmetic="portable"))
    assert made.run.device == "cpu" and made.run.task.parameters == {"arithmetic": "portable"}
    assert [each for each in made.warnings if "cumsum have no portable form; another processor may" in each]
    assert "arithmetic" not in plan.make(chosen).run.task.parameters, "torch's is faster for a model of one's own"


def test_portable_arithmetic_is_the_cpus() -> None:
    declared = ModuleTask("mine", model=Plain, train=TRAIN, test=TEST, loss=functional.cross_entropy)
    with pytest.raises(
        ConfigError, match=r"task 'mine': portable arithmetic has no kernels for a GPU; use --device cpu"
    ):
        declared(TaskContext(Path(), 8, "cuda"), "portable")
    with pytest.raises(ConfigError, match=r"task 'mine': arithmetic 'exact' is unknown; use native or portable"):
        declared(TaskContext(Path(), 8), "exact")


class Listed(Augmented):
    """Its classes are known without reading it."""

    targets = LABELS.tolist()

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        assert place in (0, 1, ITEMS - 1), "it was read"
        return super().__getitem__(place)


@pytest.mark.parametrize("train", [TRAIN, Augmented(), Listed()], ids=["tensors", "read once", "targets"])
def test_shards_follow_from_the_data_sets_classes(train: Any) -> None:
    dealt: list[Tensor] = []

    def deal(labels: Tensor) -> Shards:
        dealt.append(labels)
        return Shards(len(labels), [(labels == label).nonzero().flatten() for label in range(CLASSES)])

    declared = ModuleTask("mine", model=Plain, train=train, test=TEST, loss=functional.cross_entropy)
    made = declared(TaskContext(Path(), 8, deal=deal))
    assert torch.equal(dealt[0], LABELS)
    if not isinstance(train, Listed):
        gradient_D, _ = made.gradient(made.initial(1), SEED + b"\x02\x00")
        assert int((gradient_D[-CLASSES:] < 0).sum()) == 1, "of one class alone"


def test_what_has_no_classes_cannot_be_split() -> None:
    regression = TensorDataset(IMAGES, IMAGES.mean(dim=(1, 2, 3)))
    declared = ModuleTask(
        "mine",
        model=Plain,
        train=regression,
        test=regression,
        correct=lambda o, t: t > 0,
        loss=lambda outputs_B, targets_B: (outputs_B[:, 0] - targets_B).square().mean(),
    )
    with pytest.raises(ConfigError, match=r"task 'mine': its targets are no classes.*use --split iid"):
        declared(TaskContext(Path(), 8, deal=lambda labels: Shards(len(labels))))


def test_initial_parameters_are_the_models_own_and_depend_on_the_seed_alone() -> None:
    made = task()
    assert torch.equal(made.initial(1), made.initial(1)) and not torch.equal(made.initial(1), made.initial(2))
    assert made.dimension == sum(each.numel() for each in Net().parameters()) == made.initial(1).numel()
    assert [layer.name for layer in made.layout] == [name for name, _ in Net().named_parameters()]


def test_running_statistics_are_those_of_the_training_data() -> None:
    """A model that learns in training mode is right in evaluation mode too, and pieces add up to the whole."""
    made = task()
    parameters_D = made.initial(1)
    for step in range(60):
        gradient_D, _ = made.gradient(parameters_D, step.to_bytes(32, "little"))
        parameters_D = parameters_D - 0.2 * gradient_D
    whole = made.evaluate(parameters_D, 0, made.test_size)
    assert whole >= 0.8 * made.test_size
    assert whole == sum(made.evaluate(parameters_D, place, place + 10) for place in (0, 10, 20))
    assert made.evaluate(made.initial(1), 0, made.test_size) < whole


def test_no_piece_of_an_evaluation_reads_more_items_than_a_gradient() -> None:
    """A gradient waits for the piece under way, and has a deadline, however slow its data are."""
    read: list[int] = []

    class Read(Single):
        """Keeps count of what is read of it."""

        def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
            read.append(place)
            return super().__getitem__(place)

    made = task(train=Read(), test=Read())
    parameters_D, found, most = made.initial(1), 0, 0
    for work in pieces(StartedFrom(made, parameters_D), parameters_D, 3, 37):
        read.clear()
        found += work()
        most = max(most, len(read))
        made.gradient(parameters_D, SEED)  # it comes between
    assert most == made.batch_size
    other = ModuleTask("other", model=Net, train=Single(), test=Single(), loss=functional.cross_entropy)
    assert found == other(TaskContext(Path(), 8)).evaluate(parameters_D, 3, 37)


class Frozen(Plain):
    """One parameter is not to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.layer.bias.requires_grad_(False)


class Unused(Plain):
    """One parameter has no part in the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Parameter(torch.zeros(2))


class Counting(Plain):
    """It counts how often it is called."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, inputs_B: Tensor) -> Tensor:
        """One call more."""
        self.calls += 1
        return super().forward(inputs_B)


class Double(Plain):
    """Parameters of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.layer.double()


class Restless(Augmented):
    """Its own generator goes on from read to read."""

    def __init__(self) -> None:
        self.own = random.Random(1)

    def __getitem__(self, place: int) -> tuple[Tensor, int]:
        return IMAGES[place] + self.own.random(), 0


def nan(outputs_B: Tensor, targets_B: Tensor) -> Tensor:
    """No loss."""
    return outputs_B.sum() * float("nan")


def single(outputs_B: Tensor, targets_B: Tensor) -> Tensor:
    """A loss for each item."""
    return functional.cross_entropy(outputs_B, targets_B, reduction="none")


class Cornered(Plain):
    """Its loss is finite where its slope is none."""

    def forward(self, inputs_B: Tensor) -> Tensor:
        """The root of nothing is added."""
        return super().forward(inputs_B) + (0.0 * self.layer.weight.sum()).sqrt()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": Cornered}, "parameter 'layer.weight' has a gradient that is not finite at the model's own start"),
        ({"train": [(each, 0) for each in IMAGES * float("nan")]}, "the loss is nan at the model's own initial"),
        (
            {"train": [(each.numpy() * float("nan"), 0) for each in IMAGES]},
            "the loss is nan at the model's own initial",
        ),
        ({"model": Frozen}, "parameter 'layer.bias' is frozen (requires_grad is False); make it a buffer"),
        ({"model": Unused}, "parameter 'spare' is not used for the loss; take it out of the model"),
        ({"model": Counting}, "buffer 'calls' changes when the model computes"),
        ({"model": Double}, "parameter 'layer.weight' is float64; peers exchange float32"),
        ({"model": nn.Flatten}, "the model has no parameters"),
        ({"train": Restless()}, "item 0 of the train data set is another at a second read"),
        ({"test": []}, "the test data set is empty"),
        (
            {"train": [({"pixels": each, "mask": each > 0}, 0) for each in IMAGES]},
            "the inputs of a batch are no tensor but a dict; have the data set put each item's into one tensor",
        ),
        ({"train": [(each, (0, "cat")) for each in IMAGES]}, "the targets of a batch are no tensor but a list"),
        ({"train": [1, 2]}, "item 0 of the train data set is no (input, target) pair"),
        ({"loss": single}, "the loss is no scalar but (2,); return its mean over the batch"),
        ({"loss": nan}, "the loss is nan at the model's own initial parameters"),
        ({"train": TensorDataset(IMAGES, IMAGES), "loss": lambda a, b: a.mean()}, "pass `correct=`"),
        ({"train": lambda folder: 5}, "a int is no map-style data set"),
    ],
)
def test_what_cannot_be_trained_is_one_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as told:
        task(**given)
    assert words in str(told.value) and str(told.value).startswith("task 'mine': ") and "\n" not in str(told.value)


def test_data_that_is_not_there_is_one_line() -> None:
    def lost(folder: Path) -> object:
        raise FileNotFoundError(f"{folder / 'pictures'} is missing")

    with pytest.raises(DataError, match=r"task 'mine': its data cannot be opened: FileNotFoundError: .*is missing"):
        task(train=lost)


def test_constant_integer_buffers_and_other_targets_are_welcome() -> None:
    class Regression(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("order", torch.arange(3))

    targets = TensorDataset(IMAGES, torch.rand(ITEMS, 3))
    made = task(
        model=Regression,
        train=targets,
        test=targets,
        loss=functional.mse_loss,
        correct=lambda outputs_B, targets_B: (outputs_B - targets_B).abs().amax(dim=1) < 100,
    )
    assert made.classes == 0 and made.evaluate(made.initial(1), 0, ITEMS) == ITEMS


FILE = """
import torch, btard
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
X = torch.randn(200, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(X, (X.sum(1) > 0).long())
net = lambda: nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
btard.ModuleTask("signs", model=net, train=data, test=data, loss=F.cross_entropy)
"""


@pytest.mark.sockets
def test_ten_lines_of_ones_own_train_between_real_processes_and_ban_a_liar(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(FILE)
    assert len(FILE.strip().splitlines()) <= 10
    options: dict[str, Any] = {"peers": 4, "steps": 12, "batch_size": 16, "eval_every": 6, "lr": 0.1}
    attack: dict[str, Any] = {"attack": "sign_flip", "byzantine": 1, "attack_start": 2, "protocol_seed": 1}
    where = str(tmp_path / "run")
    done = run(Experiment(task="signs", imports=(str(mine),), run_dir=where, **options, **attack), quiet=True)
    summary = done.summary
    assert [ban.reason for ban in summary.bans] == ["gradient"] and summary.honest_banned == 0
    trained, saved = load_run(where, imports=[mine]).model(), torch.load(f"{where}/model.pt", weights_only=True)
    assert all(torch.equal(each, saved[name]) for name, each in trained.named_parameters())


@pytest.mark.sockets
def test_check_names_the_line_of_the_model_and_does_not_suspect_what_is_seeded(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    bad = FILE.replace("nn.Dropout(0.2)", "Noise()").replace("net =", NOISE + "net =")
    (tmp_path / "bad.py").write_text(bad)
    lines = {"mine.py": "ok    task 'signs' (mine.py line 8)", "bad.py": "fail  task 'signs' (bad.py line 11): "}
    for name, words in lines.items():
        done = subprocess.run([*LAUNCH, "check", name], cwd=tmp_path, capture_output=True, text=True, env=environment())
        assert words in done.stdout + done.stderr
        assert "global generator" not in done.stdout + done.stderr
        assert done.returncode == (0 if name == "mine.py" else 2)
    assert "keep something between its calls" in done.stdout + done.stderr


NOISE = """G = torch.Generator()
class Noise(nn.Module):
    def forward(self, x): return x * torch.rand(1, generator=G)
"""
