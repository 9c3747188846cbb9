"""Exports, read back by the programs they are for: onnx's reference runtime and TensorBoard's own reader."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import pytest
import torch
from torch import nn

from btard import Experiment, load_run, run, verify
from btard.launcher.export import command, lenet_onnx
from btard.launcher.report import run_data
from btard.node.errors import BackendError, ConfigError, DataError
from btard.node.training.models import lenet
from btard.node.training.sampling import generator_from_int
from btard.node.training.task import state_dict

onnx = pytest.importorskip("onnx", reason="pip install onnx")


def test_the_graph_computes_the_networks_logits(tmp_path: Path) -> None:
    from onnx import checker
    from onnx.reference import ReferenceEvaluator

    parameters_D = lenet.initial(generator_from_int(3, "mnist_cnn initial"))
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    model = lenet_onnx.graph(state_dict(lenet.LAYOUT, parameters_D))
    checker.check_model(model, full_check=True)
    (logits,) = ReferenceEvaluator(model).run(None, {"image": images.numpy()})
    torch.testing.assert_close(torch.from_numpy(logits), lenet.logits(parameters_D, images).t(), rtol=1e-4, atol=1e-5)


def test_tensorboard_reads_the_curves_and_the_bans_once_however_often_they_are_written(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from btard.launcher.export import tensorboard_logs

    made = run(Experiment(backend="simulated", task="quadratic", device="cpu", steps=40, eval_every=10, attack="noise",
                          byzantine=2, attack_start=3, undo=0, run_dir=str(tmp_path / "run")))  # fmt: skip
    foreign = made.run_dir / command.LOGS / "events.out.tfevents.1.elsewhere"
    foreign.parent.mkdir()
    foreign.touch()
    for _ in range(2):
        (logs,) = command.export(made.run_dir, onnx=False, tensorboard=True)
        assert {file.name for file in logs.iterdir()} == {foreign.name, tensorboard_logs.NAME}
    seen = EventAccumulator(str(logs))
    seen.Reload()
    accuracy = [(event.step, event.value) for event in seen.Scalars("test/accuracy")]
    assert accuracy == [(step, pytest.approx(value)) for step, value in made.summary.accuracy]
    loss = seen.Scalars("train/loss")
    assert len(loss) == 40
    active = {event.step: event.value for event in seen.Scalars("protocol/active_peers")}
    assert active[0] == 6
    assert active[39] == 4
    assert {tag.removesuffix("/text_summary") for tag in seen.Tags()["tensors"]} == {"bans/peer_4", "bans/peer_5"}
    assert run_data.load(made.run_dir).summary.bans
    with pytest.raises(ConfigError, match="no ONNX form"):
        list(command.export(made.run_dir, onnx=True, tensorboard=False))


@pytest.mark.slow
@pytest.mark.mnist
def test_a_finished_runs_model_becomes_a_graph(tmp_path: Path, mnist_directory: Path) -> None:
    made = run(Experiment(backend="simulated", device="cpu", steps=2, batch_size=4, eval_every=2,
                          data_dir=str(mnist_directory), run_dir=str(tmp_path / "run")))  # fmt: skip
    (path,) = command.export(made.run_dir, onnx=True, tensorboard=False)
    model = onnx.load(path)
    saved = torch.load(made.run_dir / "model.pt", weights_only=True)
    assert [each.name for each in model.graph.initializer] == list(saved)
    assert sum(torch.tensor(list(each.dims)).prod().item() for each in model.graph.initializer) == lenet.DIMENSION
    (made.run_dir / "model.pt").unlink()
    with pytest.raises(DataError, match="has the run finished"):
        list(command.export(made.run_dir, onnx=True, tensorboard=False))


OWN = """
import torch, btard
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
X = torch.randn(60, 8, generator=torch.Generator().manual_seed(1))
data = TensorDataset(X, (X.sum(1) > 0).long())
net = lambda: nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))
btard.ModuleTask("{name}", model=net, train=data, test=data, loss=F.cross_entropy)
"""

SMALL = Experiment(backend="simulated", task="exported", device="cpu", peers=4, steps=3, batch_size=8, eval_every=3)


def net() -> nn.Module:
    """The module of OWN, as its author's program makes it."""
    return nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.2), nn.Linear(6, 2))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(run directory, the file of its task)."""
    folder = tmp_path_factory.mktemp("own")
    mine = folder / "mine.py"
    mine.write_text(OWN.replace("{name}", "exported"))
    where = str(folder / "run")
    return run(msgspec.structs.replace(SMALL, imports=(str(mine),), run_dir=where), quiet=True).run_dir, mine


def saved(run_dir: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(run_dir / "model.pt", weights_only=True)
    return found


def test_a_plain_program_loads_an_own_model_with_its_running_statistics(own: tuple[Path, Path]) -> None:
    model = net()
    model.load_state_dict(saved(own[0]))
    inputs = torch.randn(5, 8, generator=torch.Generator().manual_seed(2))
    loaded = load_run(own[0], imports=[own[1]]).model()
    assert torch.equal(model.eval()(inputs), loaded(inputs))
    assert not torch.equal(saved(own[0])["1.running_mean"], net().state_dict()["1.running_mean"])


def test_verify_looks_at_parameters_and_at_statistics(own: tuple[Path, Path], tmp_path: Path) -> None:
    assert verify(own[0], imports=[own[1]]).wrong == 0
    for name in ("0.weight", "1.running_var"):
        altered = Path(shutil.copytree(own[0], tmp_path / name))
        tensors = saved(altered)
        tensors[name] = tensors[name] + 0.5
        torch.save(tensors, altered / "model.pt")
        found = verify(altered, imports=[own[1]])
        assert [finding.subject for finding in found.findings if not finding.ok] == ["model.pt"]


def test_a_run_goes_on_from_a_model_with_statistics(own: tuple[Path, Path], tmp_path: Path) -> None:
    places = {"data_dir": str(tmp_path / "data"), "run_dir": str(tmp_path / "run")}
    given = {"imports": (str(own[1]),), "init": str(own[0] / "model.pt"), **places}
    made = run(msgspec.structs.replace(SMALL, **given), quiet=True)
    assert saved(made.run_dir).keys() == saved(own[0]).keys()


def test_an_own_model_becomes_a_graph_for_any_batch(own: tuple[Path, Path]) -> None:
    pytest.importorskip("onnxscript", reason="pip install onnxscript")
    from onnx.reference import ReferenceEvaluator

    (path,) = command.export(own[0], onnx=True, tensorboard=False, imports=[own[1]])
    model = net()
    model.load_state_dict(saved(own[0]))
    for count in (1, 7):
        inputs = torch.randn(count, 8, generator=torch.Generator().manual_seed(count))
        (outputs,) = ReferenceEvaluator(onnx.load(path)).run(None, {"input": inputs.numpy()})
        torch.testing.assert_close(torch.from_numpy(outputs), model.eval()(inputs), rtol=1e-4, atol=1e-5)


def test_a_missing_exporter_is_one_line(own: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(BackendError, match=r"need the package onnxscript; run `pip install '\.\[export\]'`"):
        list(command.export(own[0], onnx=True, tensorboard=False, imports=[own[1]]))
