"""Exports, read back by the programs they are for: onnx's reference runtime and TensorBoard's own reader."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from btard import Experiment, run
from btard.launcher.export import command, lenet_onnx
from btard.launcher.report import run_data
from btard.node.errors import ConfigError, DataError
from btard.node.training.models import lenet
from btard.node.training.sampling import generator_from_int

onnx = pytest.importorskip("onnx", reason="pip install onnx")


def test_the_graph_computes_the_networks_logits(tmp_path: Path) -> None:
    from onnx import checker
    from onnx.reference import ReferenceEvaluator

    parameters_D = lenet.initial(generator_from_int(3, "mnist_cnn initial"))
    images = torch.randn(4, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    model = lenet_onnx.graph(parameters_D)
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
