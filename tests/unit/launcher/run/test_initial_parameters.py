"""`--init FILE`: a run that starts from given parameters, and whoever checks it."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from btard import Experiment, run
from btard.launcher.export import public
from btard.launcher.run import plan
from btard.launcher.run.cluster import Result
from btard.launcher.verify import verification
from btard.node.config import RunConfig
from btard.node.errors import ConfigError, DataError
from btard.node.genesis.genesis import read_genesis
from btard.node.protocol.state.state import parameters_digest
from btard.node.training import start
from btard.node.verify import audit

TASK = "quadratic:dimension=7"


def made(where: Path, **more: Any) -> Result:
    asked = Experiment(
        task=TASK,
        batch_size=4,
        steps=6,
        peers=4,
        backend="simulated",
        run_dir=str(where / "run"),
        data_dir=str(where / "data"),
        **more,
    )
    return run(asked, quiet=True)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("first")).run_dir


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model.pt", "nodes/0/parameters.f32"])
def test_a_run_goes_on_from_the_weights_of_another(name: str, first: Path, tmp_path: Path) -> None:
    done = made(tmp_path, init=str(first / name), attack="sign_flip", byzantine=1, attack_start=0, undo=4)
    raw = torch.frombuffer(bytearray((first / "nodes/0/parameters.f32").read_bytes()), dtype=torch.float32)
    genesis = read_genesis(done.run_dir)
    assert genesis.run.init == parameters_digest(raw).hex()
    assert (tmp_path / "data" / "initial" / f"{genesis.run.init}.f32").read_bytes() == raw.numpy().tobytes()
    assert done.summary.agreement and done.summary.outcome == "finished"
    assert [finding.ok for finding in audit.check_run(done.run_dir)].count(False) == 0
    # Steps that were undone recompute from exactly these parameters.
    assert verification.verify(done.run_dir).findings
    shared, _ = public.write(done.run_dir, tmp_path / "shared")
    assert read_genesis(shared).run.init == genesis.run.init
    (tmp_path / "data" / "initial" / f"{genesis.run.init}.f32").unlink()
    told = " ".join(f"{finding}" for finding in audit.check_run(done.run_dir))
    assert "get them from who ran this" in told


def test_a_changed_file_beside_the_data_is_refused(first: Path, tmp_path: Path) -> None:
    raw = bytearray((first / "nodes/0/parameters.f32").read_bytes())
    tensor = torch.frombuffer(bytearray(raw), dtype=torch.float32)
    digest = parameters_digest(tensor).hex()
    target = start.place(tmp_path, digest)
    target.parent.mkdir()
    raw[0] ^= 1
    target.write_bytes(raw)
    with pytest.raises(DataError, match="does not hold the 7 parameters that its name promises"):
        start.read(tmp_path, digest, 7)
    target.write_bytes(raw[:-4])
    with pytest.raises(DataError, match="does not hold"):
        start.read(tmp_path, digest, 7)


BAD = {
    "missing": (None, "cannot be read: No such file"),
    "too few": (struct.pack("<6f", *range(6)), "holds 6 parameters, and the task has 7"),
    "not floats": (b"abc", "holds no float32 values"),
    "not finite": (struct.pack("<7f", *[float("nan")] * 7), "not finite or beyond 2^40"),
    "too large": (b"\0" * (2 << 20), "is larger than the task's 7 parameters"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_file_that_cannot_be_started_from_is_refused(case: str, tmp_path: Path) -> None:
    content, message = BAD[case]
    path = tmp_path / "w.f32"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        plan.make(Experiment(task=TASK, batch_size=1, init=str(path)))
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_a_model_of_another_task_and_a_strange_pickle_are_refused(tmp_path: Path) -> None:
    torch.save({"first": torch.zeros(3)}, tmp_path / "other.pt")
    (tmp_path / "strange.pt").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    for name, problem in (("other.pt", "has no tensor 'second', which"), ("strange.pt", "is no model of this task")):
        with pytest.raises(ConfigError, match=rf"--init .* {problem}"):
            plan.make(Experiment(task=TASK, batch_size=1, init=str(tmp_path / name)))


def test_containers_and_a_digest_that_is_none_are_refused() -> None:
    with pytest.raises(ConfigError, match="hold no files of yours"):
        plan.quick_check(Experiment(init="w.f32", backend="compose"))
    with pytest.raises(ConfigError, match="is no digest"):
        RunConfig(init="../../etc/passwd")
