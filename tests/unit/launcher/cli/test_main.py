"""The command line: one clear line for each mistake, and the right exit code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from btard.launcher import exits
from btard.launcher.cli import doctor, main
from btard.launcher.run.experiment import BACKENDS
from tests.launching import LAUNCH, PATIENCE_S, environment

QUICK = ["--task", "quadratic", "--device", "cpu"]


def launch(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command line, run in this process."""
    with pytest.raises(SystemExit) as ending:
        main.main(arguments)
    captured = capsys.readouterr()
    assert isinstance(ending.value.code, int)
    return ending.value.code, captured.out, captured.err


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["verfy"], 2, "unknown command 'verfy'; did you mean 'verify'?"),
        (["--stepz", "3"], 2, "No such option '--stepz'"),
        (["--steps"], 2, "Option '--steps' requires an argument"),
        (["run", "extra"], 2, "Got unexpected extra argument (extra)"),
        (["--steps", "0"], 2, "--steps 0 is too small; use at least 1"),
        (["--steps", "ten"], 2, "--steps: 'ten' is not a whole number"),
        (["--config", "none.toml"], 2, "--config none.toml cannot be read: No such file or directory"),
        (["--attack", "nois", "--byzantine", "1"], 2, "unknown attack 'nois'; did you mean 'noise'?"),
        (
            ["--attack", "noise", "--byzantine", "3"],
            2,
            "--byzantine 3 of 6 leaves no honest majority; use at most 2, or",
        ),
        (["--expect", "honest_ban==0"], 2, "did you mean 'honest_banned'?"),
        (["--rule", "media"], 2, "unknown rule 'media'; did you mean 'median'?"),
        (["--rule", "bucketing:s=0+krum", "--dry-run"], 2, "pre-aggregation 'bucketing': s=0 must be at least 1"),
        (["--rule", "bucketing:s=-1+krum", "--dry-run"], 2, "pre-aggregation 'bucketing': s=-1 must be at least 1"),
        (["--rule", "krum:f=-1", "--dry-run"], 2, "'krum': f=-1 must be a whole number of at least 0"),
        (["--rule", "mda", "--peers", "24", "--dry-run"], 2, "rule 'mda' looks at all 2496144 subsets of 13 of 24"),
        (["--backend", "local2"], 2, "unknown backend 'local2'; did you mean 'local'?"),
        (["--validators", "5"], 2, "--validators 5 of 6 leaves too few contributors; use at most 2"),
        (["--run-dir", "full"], 2, "--run-dir full exists and is not empty"),
        (["--run-dir", "full/file/run"], 3, "use another --run-dir"),
        (
            ["--task", "mnist_cnn", "--data-dir", "nothing", "--no-download"],
            3,
            "run `btard-launch data mnist --data-dir ",
        ),
        (["plan", "--peers", "1"], 2, "--peers 1 is too small"),
        (["verify", "."], 2, "is not a run directory: it has no genesis.json"),
        (["verify"], 2, "no run under runs; name a run directory"),
        (["resume", "."], 2, "run.json cannot be read (No such file or directory); name one below runs/"),
        (["status", "."], 2, "run.json cannot be read (No such file or directory); name one below runs/"),
        (["export", "."], 2, "name one below runs/"),
        (
            ["sweep"],
            2,
            "nothing to sweep; name a plan (paper, rules, starts, mixed, aggregation, sixteen, cifar, careers, ",
        ),
        (["sweep", "--quick"], 2, "--quick belongs to a plan"),
        (["data", "cifar"], 2, "unknown data set 'cifar'; did you mean"),
        (["data", "--check", "--data-dir", "nothing"], 3, "run `btard-launch data mnist --data-dir "),
        (["doctor", "--peers", "1"], 2, "1 is not in the range 2<=x<=256"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes(
    arguments: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = sorted(tmp_path.rglob("*"))
    if arguments[0].startswith("-") and "--task" not in arguments:
        arguments = [*QUICK, *arguments]
    found, out, err = launch(capsys, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before, "something was left behind"


def test_a_dry_run_starts_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = launch(capsys, *QUICK, "--attack", "noise", "--byzantine", "2", "--base-port", "7000", "--dry-run")
    assert (code, err) == (0, "")
    assert "node 5  attacker  control tcp://127.0.0.1:7010  bulk tcp://127.0.0.1:7011" in out
    assert "expected bulk bytes: " in out
    assert "if nobody is banned and nothing is disputed" in out
    assert "a part is 42 B: its header adds up to 128 bytes more" in out
    assert list(tmp_path.iterdir()) == []
    assert launch(capsys, "plan", *QUICK, "--attack", "noise", "--byzantine", "2", "--base-port", "7000")[1] == out


def test_each_value_is_shown_with_its_source(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "mine.toml").write_text("tau = 2.5\n")
    monkeypatch.setenv("BTARD_LR", "0.125")
    monkeypatch.setenv("BTARD_LRR", "0.125")
    code, out, err = launch(capsys, "--show-config", "-n", "5", "--config", "mine.toml", "--no-download")
    shown = {line.split(" = ")[0].strip(): line.split(" = ")[1] for line in out.splitlines()}
    assert code == 0
    assert err == "warning: BTARD_LRR is no option and has no effect; did you mean BTARD_LR?\n"
    assert shown["peers"].split() == ["5", "#", "flag", "--peers"]
    assert shown["lr"].split() == ["0.125", "#", "variable", "BTARD_LR"]
    assert shown["tau"].split() == ["2.5", "#", "file", "mine.toml"]
    assert shown["download"].split() == ["false", "#", "flag", "--no-download"]
    assert shown["steps"].split() == ["900", "#", "default"]


@pytest.mark.parametrize(
    ("command", "names"),
    [("attacks", ["noise", "label_flip", "lenient_validator"]), ("rules", ["centered_clip", "mean", "median"]),
     ("tasks", ["mnist_cnn", "quadratic", "dirichlet"]), ("optimisers", ["sgd", "adamw", "rmsprop", "cosine"])],
)  # fmt: skip
def test_catalogues(command: str, names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = launch(capsys, command)
    assert code == 0
    heads = [line.split(":")[0].split(" ")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert set(names) <= set(heads)
    assert out.count("source: ") == len(heads)


@pytest.mark.slow
@pytest.mark.parametrize(("words", "code"), [(["attacks"], 0), (["run", *QUICK, "--dry-run"], 1)])
def test_a_reader_that_leaves_has_what_it_wanted_of_a_list_alone(words: list[str], code: int, tmp_path: Path) -> None:
    """The reader is gone before the first line, as behind `| head -0`."""
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as pipe:
        done = subprocess.run([*LAUNCH, *words], cwd=tmp_path, env=environment(), stdout=pipe, stderr=subprocess.PIPE,
                              text=True, timeout=PATIENCE_S)  # fmt: skip
    assert (done.returncode, done.stderr) == (code, "")


def test_event_files_without_their_package_are_refused_before_the_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    code, _, err = launch(capsys, *QUICK, "--tensorboard")
    assert (code, err.count("\n")) == (3, 1)
    assert "TensorBoard files need the package tensorboard; run `pip install '.[export]'` in the clone" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [(*QUICK, "--grafana", "http://127.0.0.1:9"), ("dashboards", "push")])
def test_grafanas_api_without_its_package_is_refused_before_the_run(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "grafana_api.grafana_api", None)
    monkeypatch.delitem(sys.modules, "btard.launcher.monitor.grafana", raising=False)
    code, _, err = launch(capsys, *words)
    assert (code, err.count("\n")) == (3, 1)
    assert "needs the package grafana-api; run `pip install '.[monitor]'` in the clone" in err
    assert list(tmp_path.iterdir()) == []


def test_the_tasks_say_that_private_data_cannot_be_used(capsys: pytest.CaptureFixture[str]) -> None:
    assert "private data cannot be used: gradients are recomputed from public data" in launch(capsys, "tasks")[1]


def test_the_doctor_names_each_thing(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = launch(capsys, "doctor", "--data-dir", "nothing", "--peers", "2")
    lines = {line.split()[1]: line.split()[0] for line in out.splitlines()}
    named = "python torch kernels msgspec gpu cores disk /dev/shm ports mnist shaping"
    assert set(named.split()) <= set(lines)
    assert lines["mnist"] == "warn"
    assert code == (exits.PREFLIGHT if "fail" in lines.values() else exits.OK)


@pytest.mark.parametrize(
    ("driver", "usable", "level", "words"),
    [
        (False, False, "ok", "none: gradients are computed on the CPU"),
        (True, False, "warn", "a driver is here, but torch .* finds no usable GPU"),
        pytest.param(
            True, True, "fail", ".*(CUDA|NVIDIA).*",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="the GPU here computes: see tests/gpu"),
        ),
    ],
    ids=["none", "torch has no use for it", "it does not compute"],
)  # fmt: skip
def test_the_doctor_tries_the_gpu(
    driver: bool, usable: bool, level: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "driver_present", lambda: driver)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: usable)
    (found,) = (check for check in doctor.examine(tmp_path, tmp_path) if check.subject == "gpu")
    assert found.level == level and re.fullmatch(words, found.found)
    assert (found.advice != "") == (level != "ok")


def test_help_lists_every_command_and_every_group(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = launch(capsys, "--help")
    assert code == 0
    for command in ("run", "plan", "verify", "data", "doctor", "attacks", "rules", "tasks", "optimisers"):
        assert f"\n  {command} " in out
    out = launch(capsys, "run", "--help")[1]
    groups = [line[:-1] for line in out.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert groups == ["Cluster", "Attack", "Training", "Defence", "Network", "Seeds", "Where it runs", "General"]


def test_no_summary_of_a_command_is_cut_short(capsys: pytest.CaptureFixture[str]) -> None:
    listed = launch(capsys, "--help")[1].partition("Commands:")[2].partition("Examples:")[0]
    summaries = [line for line in listed.splitlines() if line.strip()]
    assert len(summaries) == len(main.cli.commands)
    assert [line for line in summaries if not line.endswith(".") or line.endswith("...")] == []


def test_help_shows_defaults_that_are_worked_out_and_the_backends(capsys: pytest.CaptureFixture[str]) -> None:
    out = " ".join(launch(capsys, "run", "--help")[1].split())
    for flag in (
        "--gradient-bound auto|TIME",
        "--delta-max auto|NORM",
        "--bandwidth none|RATE",
        "--init-seed auto|SEED",
    ):
        word = flag.partition(" ")[2].partition("|")[0]
        assert out.partition(flag)[2].partition(" --")[0].endswith(f"[{word}]"), flag
    assert f"--backend {'|'.join(BACKENDS)} " in out


def test_the_help_of_sweep_has_no_line_without_words(capsys: pytest.CaptureFixture[str]) -> None:
    lines = launch(capsys, "sweep", "--help")[1].splitlines()
    assert lines[0].endswith("[PLAN|FILE]")
    assert not [line for line in lines if line.strip() == "[PLAN|FILE]"]


def test_help_and_show_config_load_neither_torch_nor_the_live_view() -> None:
    program = """
import sys
from btard.launcher.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit as ending:
    assert not ending.code
heavy = {"torch", "numpy", "zmq", "nacl", "rich.live", "multiprocessing"} & set(sys.modules)
assert not heavy, heavy
"""
    for arguments in (["--help"], ["run", "--help"], ["--show-config"]):
        command = [sys.executable, "-c", program, *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment())


@pytest.mark.parametrize(
    ("outcome", "signum", "violated", "code"),
    [
        ("finished", None, False, 0), ("finished", None, True, 4), ("failed", None, True, 1),
        ("timeout", None, True, 5), ("interrupted", 2, True, 130), ("interrupted", 15, False, 143),
    ],
)  # fmt: skip
def test_exit_codes(outcome: str, signum: int | None, violated: bool, code: int) -> None:
    assert exits.of_run(outcome, signum, violated) == code


def test_a_reader_that_leaves_is_no_error() -> None:
    command = [*LAUNCH, "run", "--help"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
