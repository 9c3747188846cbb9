"""What is settled and checked before a run."""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from btard.launcher import files
from btard.launcher.monitor import live_view
from btard.launcher.network import traffic
from btard.launcher.run import data, plan, undo_window
from btard.launcher.run.experiment import Experiment
from btard.node.config import Contribute
from btard.node.errors import BackendError, ConfigError, DataError
from btard.node.kernels import building, portable

QUICK: dict[str, Any] = {"task": "quadratic", "device": "cpu"}


@pytest.mark.parametrize(
    ("options", "arithmetic"),
    [
        ({"device": "cpu"}, "portable"),
        ({"device": "cpu", "task": "transformer_lm:width=32"}, "portable"),
        ({"device": "cpu", "task": "mnist_cnn:arithmetic=native"}, "native"),
        ({"device": "cpu", "arithmetic": "native"}, "native"),
        ({"device": "cpu", "task": "cifar10_resnet18"}, "native"),
        ({"device": "cpu", "task": "quadratic"}, "native"),
    ],
)
def test_arithmetic_is_portable_where_the_task_has_it(options: dict[str, Any], arithmetic: str) -> None:
    made = plan.make(Experiment(**options))
    assert made.run.arithmetic == arithmetic and made.warnings == ()
    given = options.get("task", "mnist_cnn").partition(":")[2].split("=")
    assert given == [""] or given[0] in made.run.task.parameters


def test_without_a_compiler_gradients_are_torchs_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(building, "BUILT", tmp_path)
    monkeypatch.setattr(portable, "library", portable.library.__wrapped__)  # not what was found before
    monkeypatch.setenv("PATH", str(tmp_path))
    made = plan.make(Experiment(device="cpu"))
    assert made.run.arithmetic == "native"
    assert made.warnings == (
        "no C compiler here (cc, gcc or clang): gradients have the bits of torch on this processor",
    )
    assert plan.make(Experiment(device="cpu", arithmetic="native")).warnings == ()
    with pytest.raises(BackendError, match="install gcc, or use --arithmetic native"):
        plan.make(Experiment(device="cpu", arithmetic="portable"))


def test_a_gpu_computes_in_torchs_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "device", lambda choice: "cuda")
    run = Experiment(task="mnist_cnn").run_config("cuda")
    assert (plan.make(Experiment(arithmetic="auto")).run.arithmetic, run.arithmetic) == ("native", "native")


def test_a_port_in_use_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        # The first port of the run: whatever else holds a port beside it is met later.
        made = plan.make(Experiment(task="quadratic", device="cpu", peers=2, base_port=port))
        with pytest.raises(BackendError) as caught:
            plan.preflight(made)
    assert f"port {port} of node 0" in str(caught.value)
    assert f"use another --base-port than {port}, or 0" in str(caught.value)


def test_a_run_that_does_not_fit_on_the_disk(tmp_path: Path) -> None:
    made = plan.make(Experiment(task="quadratic", device="cpu", steps=10**13, run_dir=str(tmp_path / "a/b")))
    with pytest.raises(BackendError, match=r"free, the run needs .* TB; free some space"):
        plan.preflight(made)
    assert not (tmp_path / "a").exists()


def test_more_peers_than_this_system_has_descriptors_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = Experiment(task="quadratic", device="cpu", peers=64, undo=0, steps=10, run_dir=str(tmp_path / "run"))
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 400))
    with pytest.raises(BackendError, match=r"64 workers opens up to 424 files .* may open 400 .* --backend simulated"):
        plan.preflight(plan.make(asked))
    for fits in (msgspec.structs.replace(asked, peers=60), msgspec.structs.replace(asked, backend="simulated")):
        plan.preflight(plan.make(fits))


def test_more_peers_than_this_machine_has_memory_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = Experiment(task="quadratic:dimension=1000000", device="cpu", run_dir=str(tmp_path / "run"))
    monkeypatch.setattr(plan, "available_bytes", lambda: 215_000_000)
    with pytest.raises(BackendError, match=r"6 workers hold at least 216.0 MB of memory, and 215.0 MB are free; use"):
        plan.preflight(plan.make(asked))
    plan.preflight(plan.make(msgspec.structs.replace(asked, peers=5)))


def test_the_memory_that_is_free_is_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    free, total = plan.available_bytes(), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert free is not None
    assert 1 << 20 < free < total
    monkeypatch.setattr(Path, "read_text", lambda path: "Mem: none")
    assert plan.available_bytes() is None


def test_what_undo_keeps_on_the_disk_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Experiment(task="quadratic:dimension=1000000", device="cpu", steps=200, run_dir=str(tmp_path / "run"))
    needs = {
        window: plan.bytes_on_disk(plan.make(msgspec.structs.replace(asked, undo=window))) for window in (0, 40, 128)
    }
    step = 6 * (4 * 1000000 + 2 * undo_window.MESSAGE_BYTES * 36)
    model = 6 * 4 * 2 * 1000000
    adam = msgspec.structs.replace(asked, optimiser="adam")
    more = [plan.bytes_on_disk(plan.make(msgspec.structs.replace(adam, undo=window))) for window in (0, 40)]
    # Files of 31 steps, and of 32 with twice the optimiser's state.
    assert needs[40] - needs[0] == 40 * step + model
    assert needs[128] - needs[40] == 88 * step + 3 * model
    assert more[1] - more[0] == 40 * step + model + 6 * 4 * 1000001
    monkeypatch.setattr(plan, "free_bytes", lambda path: needs[40])
    plan.preflight(plan.make(msgspec.structs.replace(asked, undo=40)))
    unkept = plan.make(msgspec.structs.replace(asked, undo=128, checkpoints=False))
    plan.preflight(unkept)
    assert plan.bytes_on_disk(unkept) < needs[0]
    with pytest.raises(BackendError, match=r"has 2\.\d GB free, the run needs 5\.\d GB; free some space"):
        plan.preflight(plan.make(msgspec.structs.replace(asked, undo=128)))
    few = msgspec.structs.replace(asked, undo=128, steps=40)
    assert plan.bytes_on_disk(plan.make(few)) < needs[40], "a window is no longer than the run"


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (errno.ENOSPC, "the disk is full: cannot write /x/y; free some space"),
        (errno.EACCES, "/x/y is not writable"),
        (errno.EROFS, "/x/y is not writable"),
        (errno.EIO, "cannot write /x/y"),
    ],
)
def test_errors_of_the_disk_in_one_line(number: int, message: str) -> None:
    assert message in str(files.disk_error(OSError(number, "reason"), Path("/x/y")))


def test_missing_data_leaves_the_bytes_unknown(tmp_path: Path) -> None:
    made = plan.make(Experiment(device="cpu", data_dir=str(tmp_path)))
    assert (made.dimension, made.bytes_expected) == (None, None)
    with pytest.raises(DataError, match="btard-launch data mnist --data-dir"):
        data.provide(made.run, made.data_directory, download=False, report=lambda line: None)


def test_a_task_without_data_needs_none(tmp_path: Path) -> None:
    made = plan.make(Experiment(task="quadratic", device="cpu", data_dir=str(tmp_path / "none")))
    data.provide(made.run, made.data_directory, download=False, report=lambda line: None)
    assert made.dimension == 64
    assert made.bytes_expected == traffic.run_bytes(64, 6, made.run.steps, validators=1)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("peers", "choice", "idle"), [(5, "auto", 0), (5, "off", 1), (6, "auto", 1), (6, "on", 0)])
def test_expected_bytes_are_of_those_who_contribute(peers: int, choice: Contribute, idle: int) -> None:
    made = plan.make(Experiment(task="quadratic", device="cpu", peers=peers, steps=9, validators_contribute=choice))
    assert made.bytes_expected == traffic.run_bytes(64, peers, 9, idle)


@pytest.mark.parametrize("use", [data.check, lambda name, where: data.prepare(name, where, print)])
def test_an_unknown_data_set(use: object, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown data set 'cifar'; did you mean"):
        use("cifar", tmp_path)  # type: ignore[operator]


def test_cuda_without_a_gpu() -> None:
    import torch

    if torch.cuda.is_available():
        assert plan.device("auto") == "cuda"
    else:
        assert plan.device("auto") == "cpu"
        with pytest.raises(BackendError, match="--device cuda: torch finds no usable GPU here; use --device cpu"):
            plan.device("cuda")


def test_the_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    assert files.last_lines(log, 2) == ()
    log.write_text("one\n\ntwo  \nthree\n\n")
    assert files.last_lines(log, 2) == ("two", "three")


@pytest.mark.parametrize(
    ("options", "steps", "words"),
    [
        ({}, 29, "undo 29 steps (356.4 kB a peer); who is gone stays gone"),
        ({"peers": 16}, 81, "undo 81 steps"),
        ({"peers": 4}, 19, "undo 19 steps"),
        ({"probation": 0}, 29, "undo 29 steps (356.4 kB a peer)"),
        ({"validate_every": 5}, 128, "undo 128 steps (1.6 MB a peer, fewer than 99 % of attackers need)"),
        ({"task": "quadratic:dimension=1000000"}, 21, "undo 21 steps"),
        ({"task": "quadratic:dimension=1000000", "optimiser": "adam"}, 15, "undo 15 steps"),
        ({"task": "quadratic:dimension=5000000"}, 4, "a peer, fewer than 99 % of attackers need)"),
        ({"task": "quadratic:dimension=12000000"}, 0, "undo off: a step's state takes 144.0 MB of 256.0 MB"),
        ({"on_ban": "reform"}, 0, "undo off: --on-ban reform"),
        ({"recompute_tolerance": 0.1}, 0, "undo off: --recompute-tolerance"),
        (
            {"topology": "ring", "rule": "mean", "backend": "simulated"},
            0,
            "undo off: nobody is banned under --topology",
        ),
        ({"validators": 0}, 0, "undo off: no gradient is ever checked"),
        ({"peers": 2}, 0, "undo off: no gradient is ever checked"),
    ],
    ids=str,
)
def test_the_window_of_undo_by_default(options: dict[str, Any], steps: int, words: str) -> None:
    made = plan.make(Experiment(**{**QUICK, "batch_size": 1, **options}))
    assert made.run.undo == steps
    assert words in made.undo and made.undo in live_view.headline(made)
    assert ("who is gone stays gone" in made.undo) == (steps > 0 and made.run.probation > 0)


def test_whoever_shows_a_run_of_others_says_what_undo_came_to() -> None:
    made = plan.make(Experiment(**QUICK))
    shown = plan.again(made.experiment, made.run, made.roles, made.data_directory)
    assert shown.undo == made.undo and shown.undo.startswith("undo 29 steps")
    chosen = plan.make(Experiment(**QUICK, undo=7))
    assert plan.again(chosen.experiment, chosen.run, chosen.roles, chosen.data_directory).undo == ""


def test_the_window_of_undo_does_not_tell_how_many_attack() -> None:
    windows = {plan.make(Experiment(**QUICK, byzantine=count, attack="noise")).run.undo for count in (1, 2)}
    assert windows == {plan.make(Experiment(**QUICK)).run.undo}


def test_a_scenario_leaves_undo_off_and_whoever_asks_for_it_has_it(tmp_path: Path) -> None:
    scenario = tmp_path / "short.scn"
    scenario.write_text("at step 5 kill 3\nat step 9 restart 3\n")
    disturbed = Experiment(**QUICK, scenario=str(scenario))
    made = plan.make(disturbed)
    assert (
        made.run.undo == 0 and made.undo == "undo off: --scenario may take peers away, and with undo nobody comes back"
    )
    asked = plan.make(msgspec.structs.replace(disturbed, undo=7))
    assert (asked.run.undo, asked.undo) == (7, "")
    assert plan.make(Experiment(**QUICK, undo=0)).run.undo == 0


def test_a_batch_larger_than_the_data_is_refused() -> None:
    task = "transformer_lm:context_length=16,width=16,blocks=1"
    with pytest.raises(ConfigError, match=r"--batch-size 1000000 is more than the \d+ training examples of task"):
        plan.make(Experiment(task=task, device="cpu", batch_size=1000000))
