"""`btard-launch --backend compose`: the launcher's view of the same cluster, at any size, and what it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

from btard.launcher.backends.compose import project_name
from btard.launcher.containers import engine
from btard.launcher.containers.engine import Project
from btard.node.errors import BackendError
from tests.containers.cluster import PATIENCE_S, Cluster
from tests.launching import LAUNCH, environment, launched, read_until

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("image")]
SMALL = ("--backend", "compose", "--task", "quadratic", "--eval-every", "10", "--delivery-bound", "10s")


def left_of(run_dir: Path) -> list[str]:
    run_id = json.loads((run_dir / "run.json").read_text())["run_id"]
    project = Project(project_name(run_id))
    return [name for kind in ("container", "volume", "network")
            for name in project.left(kind, *(["--all"] if kind == "container" else []))]  # fmt: skip


def command(where: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAUNCH, *arguments], cwd=where, env=environment(), capture_output=True, text=True,
                          timeout=20 * PATIENCE_S)  # fmt: skip


def test_twelve_nodes_from_here_with_the_same_run_directory(tmp_path: Path) -> None:
    done = command(tmp_path, *SMALL, "-n", "12", "--attack", "sign_flip", "--byzantine", "2", "--attack-start", "5",
                   "--steps", "60", "--protocol-seed", "2", "--run-dir", "run", "--json", "--expect",
                   "honest_banned==0", "--expect", "undetected==0", "--expect", "agreement==true")  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["steps"] + len(summary["undone"]) == 60 and summary["byzantine"] == [10, 11]
    run_dir = tmp_path / "run"
    assert json.loads((run_dir / "summary.json").read_text()) == summary
    for name in ("run.json", "genesis.json", "events.jsonl", "metrics.jsonl", "model.pt", "logs/node-11.log"):
        assert (run_dir / name).stat().st_size > 0, name
    assert all((run_dir / ban["evidence"]).exists() for ban in summary["bans"])
    assert left_of(run_dir) == []


def test_status_logs_and_stop_from_another_terminal(tmp_path: Path) -> None:
    with launched(tmp_path, *SMALL, "-n", "3", "--steps", "100000", "--run-dir", "run") as process:
        read_until(process, "workers ready")
        status = command(tmp_path, "status", "run").stdout.splitlines()
        assert status[0].endswith("in run: running") and len(status) == 2 + 3
        assert "node 1 of run" in command(tmp_path, "logs", "run", "--node", "1").stdout
        stopped = command(tmp_path, "stop", "run")
        assert stopped.returncode == 0 and stopped.stdout.startswith("stopped ")
        assert process.wait(PATIENCE_S) == 143
    assert left_of(tmp_path / "run") == []
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["outcome"] == "interrupted"
    assert "interrupted" in command(tmp_path, "status", "run").stdout


def test_stop_removes_what_a_killed_launcher_left(tmp_path: Path) -> None:
    with launched(tmp_path, *SMALL, "-n", "2", "--steps", "100000", "--run-dir", "run") as process:
        read_until(process, "workers ready")
        process.kill()
        process.wait(PATIENCE_S)
    assert left_of(tmp_path / "run") != []
    assert "launcher is gone" in command(tmp_path, "status", "run").stdout
    assert command(tmp_path, "stop", "run").returncode == 0
    assert left_of(tmp_path / "run") == []


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([*LAUNCH, *SMALL, "--monitor", "--run-dir", "run"], cwd=tmp_path, capture_output=True,
                              text=True, env={**environment(), "PROMETHEUS_PORT": str(port)}, timeout=60)  # fmt: skip
    assert done.returncode == 3
    assert f"port {port} cannot be bound" in done.stderr and "set PROMETHEUS_PORT" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_gpu_is_not_promised_where_the_engine_has_none() -> None:
    try:
        engine.check_gpu()
    except BackendError as error:
        assert "NVIDIA" in str(error) and "--device cpu" in str(error)
    else:
        runtimes = subprocess.run(["docker", "info", "--format", "{{json .Runtimes}}"], capture_output=True, text=True)
        assert "nvidia" in runtimes.stdout


def test_a_node_without_its_configuration_says_so() -> None:
    cluster = Cluster({})
    try:
        done = cluster.compose("run", "--rm", "-T", "--no-deps", "node-0", check=False)
        assert done.returncode == 2 and "cannot read the node configuration /btard/run/config.json" in done.stderr
        done = cluster.compose("run", "--rm", "-T", "--no-deps", "observer", check=False)
        assert done.returncode == 2 and "/btard/truth is not a run directory" in done.stderr
    finally:
        cluster.down()
    assert cluster.left() == []


def test_a_setting_that_cannot_be_run_ends_the_roles_service_and_starts_no_node() -> None:
    cluster = Cluster({"BTARD_BYZANTINE": "3", "BTARD_ATTACK": "noise"})
    try:
        done = cluster.compose("up", "--detach", "--no-build", "node-0", check=False)
        assert done.returncode != 0
        assert "--byzantine 3" in cluster.story()
        assert cluster.states()["node-0"]["State"] == "created"
    finally:
        cluster.down()
