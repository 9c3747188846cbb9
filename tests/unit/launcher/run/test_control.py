"""`status`, `logs` and `stop` of local runs, and what an engine that is missing or too old leads to."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from btard import Experiment, run
from btard.launcher.containers import engine, ports
from btard.launcher.run import control
from btard.launcher.run.run_directory import read_record
from btard.node.errors import BackendError, ConfigError
from tests.launching import PATIENCE_S, command, launched, read_until


@pytest.mark.sockets
def test_a_local_run_seen_and_stopped_from_another_terminal(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "mine"
    with launched(
        tmp_path, "--task", "quadratic", "-n", "2", "--steps", "1000000", "--run-dir", "runs/mine"
    ) as process:
        read_until(process, "workers ready")
        lines = control.status(run)
        assert lines[0].endswith(": running") and read_record(run).run_id in lines[0]
        assert [line.split()[:3] for line in lines[2:]] == [["node", "0", "honest"], ["node", "1", "honest"]]
        said: list[str] = []
        control.stop(run, said.append)
        assert said == [f"stopped {read_record(run).run_id}"]
        assert process.wait(PATIENCE_S) == 143
        assert process.stdout is not None
        assert "go on with it: btard-launch resume runs/mine\n" in process.stdout.read()
    assert control.worker(run) is None and control.latest(tmp_path / "runs") == run
    assert "interrupted, stopped by signal 15" in control.status(run)[0]
    assert "step -1" not in "".join(control.status(run))
    assert [line.split()[3] for line in control.status(run)[2:]] == ["stopped", "stopped"]
    control.stop(run, said.append)
    assert said[1].endswith("is not running")
    (run / "logs" / "node-1.log").write_text("one\ntwo\nthree\n")
    assert control.logs(run, 1, 2) == ["node 1 | two", "node 1 | three"]
    with pytest.raises(ConfigError, match="--node 7 is none of the 2 nodes"):
        control.logs(run, 7, 2)


def test_a_note_of_another_process_with_the_same_number_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / control.NOTE).write_bytes(msgspec.json.encode(control.Running(os.getpid(), "1")))
    assert control.worker(tmp_path) is None
    with control.marked(tmp_path):
        assert control.worker(tmp_path) is not None
    assert not (tmp_path / control.NOTE).exists()


def test_a_run_without_a_step_and_without_a_word_says_so(tmp_path: Path) -> None:
    where = tmp_path / "run"
    experiment = Experiment(peers=3, task="quadratic", batch_size=4, steps=3, backend="simulated", run_dir=str(where))
    run(experiment)
    assert control.logs(where, None, 5) == [
        f"the workers wrote nothing; their journals are {where}/nodes/N/journal.jsonl"
    ]
    assert control.logs(where, 1, 5)[0].endswith("/nodes/1/journal.jsonl")
    assert "step 3 of 3" in control.status(where)
    for journal in where.glob("nodes/*/journal.jsonl"):
        journal.write_text("")
    lines = control.status(where)
    assert lines[1] == "no step yet"
    assert [line.rpartition("  ")[2] for line in lines[2:]] == ["no step yet"] * 3


def test_without_a_run_the_error_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no run under .*name a run directory"):
        control.latest(tmp_path)


@pytest.mark.slow
def test_no_docker_is_exit_3_and_says_what_to_do(tmp_path: Path) -> None:
    done = command(tmp_path, "--backend", "compose", PATH=str(tmp_path))
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "the command docker is not here; install Docker with Compose, or use --backend local" in done.stderr
    assert list(tmp_path.iterdir()) == []


STUBS = {
    "no engine": ("echo 'Cannot connect to the Docker daemon' >&2; exit 1", "no container engine answers",
                  "start Docker"),
    "no compose": ("[ $1 = version ] && echo 27.0 || { echo \"'compose' is not a docker command\" >&2; exit 1; }",
                   "docker has no Compose", "install Compose v2"),
    "old compose": ("[ $1 = version ] && echo 27.0 || echo v2.6.1", "Compose v2.6.1 is too old",
                    "install 2.20 or newer"),
    "compose 1": ("[ $1 = version ] && echo 27.0 || echo 1.29.2", "Compose 1.29.2 is too old", "install 2.20 or newer"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", STUBS)
def test_an_engine_that_cannot_be_used_is_named_with_a_way_out(case: str, tmp_path: Path) -> None:
    """Old versions cannot be had beside the real one: a script answers in their words."""
    answer, problem, advice = STUBS[case]
    script = tmp_path / "docker"
    script.write_text(f"#!/bin/sh\n{answer}\n")
    script.chmod(0o755)
    with pytest.raises(BackendError) as raised:
        engine.find({"PATH": f"{tmp_path}:/usr/bin:/bin"})
    assert problem in str(raised.value) and advice in str(raised.value)
    if case != "old compose":
        return
    done = command(tmp_path, "doctor", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert any(line.startswith("warn  engine") and problem in line for line in done.stdout.splitlines())


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("Error: Bind for 127.0.0.1:9090 failed: port is already allocated", "set PROMETHEUS_PORT"),
        ('could not select device driver "nvidia" with capabilities: [[gpu]]', "--device cpu"),
        ("write /x: no space left on device", "docker system df"),
    ],
)
def test_what_compose_complains_of_comes_with_advice(said: str, advice: str) -> None:
    told = engine.explained("up", f"something\n{said}\n")
    assert said.removeprefix("Error: ") in told and advice in told and "\n" not in told


@pytest.mark.parametrize("value", ["abc", "70000", "-1"])
def test_a_port_that_is_none(value: str) -> None:
    with pytest.raises(BackendError, match=r"PROMETHEUS_PORT=.* is no port"):
        ports.of({"PROMETHEUS_PORT": value})
    assert ports.of({"GRAFANA_PORT": "0"}) == (9090, 0)
