"""Evidence between containers and processes: whoever has the run's versions recomputes it, whoever has not is told."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from btard.launcher.containers import versions
from btard.launcher.run.data import directory
from tests.containers.cluster import PATIENCE_S, ROOT, Cluster
from tests.containers.conftest import REQUIRED

pytestmark = pytest.mark.containers

OTHER = "IMAGE_PYTHON"
"""An interpreter of this machine with the image's torch, and without torchvision."""
ATTACKED = {"BTARD_ATTACK": "noise", "BTARD_BYZANTINE": "1", "BTARD_ATTACK_START": "3", "BTARD_STEPS": "30",
            "BTARD_BATCH_SIZE": "16", "BTARD_EVAL_EVERY": "15"}  # fmt: skip
OPTIONS = [word for name, text in ATTACKED.items()
           for word in ("--" + name.removeprefix("BTARD_").lower().replace("_", "-"), text)]  # fmt: skip


@pytest.fixture(scope="module")
def other() -> str:
    """The interpreter with the image's torch."""
    found = os.environ.get(OTHER)
    if found is None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"{OTHER} does not name a Python with the image's torch")
        pytest.skip(f"{OTHER} names no Python with the image's torch")
    return found


@pytest.fixture(scope="module")
def contained(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Cluster]]:
    """A run in containers, in the arithmetic of torch; brought here by the command that its observer prints."""
    cluster, where = Cluster({**ATTACKED, "BTARD_ARITHMETIC": "native"}), tmp_path_factory.mktemp("contained")
    try:
        cluster.up()
        assert cluster.compose("wait", "observer").returncode == 0
        told = cluster.compose("logs", "--no-log-prefix", "observer").stdout
        (line,) = [each for each in told.splitlines() if "take it along: " in each]
        source = line.partition("docker compose cp ")[2].split(" . && ")[0]
        cluster.compose("cp", source, str(where))
        (run_dir,) = where.iterdir()
        assert line.endswith(f"btard-launch verify {run_dir.name}")
        yield run_dir, cluster
    finally:
        cluster.down()


def launch(python: str, *words: str, where: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("BTARD_")}
    kept |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [python, "-m", "btard.launcher", *words]
    return subprocess.run(command, cwd=where, env=kept, capture_output=True, text=True, timeout=6 * PATIENCE_S)


def recomputed(done: subprocess.CompletedProcess[str]) -> None:
    """The ban was decided by its gradient's bits, and nothing for lack of them."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok    ban of peer 5" in done.stdout and ": recomputation: peer 5 committed" in done.stdout, done.stdout
    assert "for lack of" not in done.stdout and "0 wrong, 3 not checked" in done.stdout.splitlines()[-1]


def test_the_image_verifies_the_last_run(contained: tuple[Path, Cluster]) -> None:
    _, cluster = contained
    recomputed(cluster.compose("run", "--rm", "verify"))


def test_a_container_run_is_recomputed_on_the_host(contained: tuple[Path, Cluster], other: str) -> None:
    run_dir, _ = contained
    assert subprocess.run([other, "-c", "import torchvision"], capture_output=True).returncode != 0
    recomputed(launch(other, "verify", run_dir.name, where=run_dir.parent))


def test_elsewhere_verify_names_what_differs_and_a_command_that_recomputes(
    contained: tuple[Path, Cluster], tmp_path: Path
) -> None:
    run_dir, _ = contained
    ran = subprocess.run(["docker", "run", "--rm", "btard:cpu", "python", "-m", "btard.launcher.containers.versions"],
                         capture_output=True, text=True, check=True)  # fmt: skip
    there = ran.stdout.split('"torch":"')[1].split('"')[0]
    if there == versions.here().torch:
        pytest.skip(f"this Python computes with the image's torch, {there}")
    done = launch(sys.executable, "verify", run_dir.name, where=run_dir.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    (told,) = [line for line in done.stdout.splitlines() if f"torch {torch.__version__} here, {there} there; " in line]
    assert "all probes equal" in told or ", differs" in told, "whether it is more than the name"
    assert "(1 of them for lack of a recomputation)" in done.stdout.splitlines()[-1]
    (command,) = [line.partition(": ")[2] for line in done.stdout.splitlines() if line.startswith("recompute in the")]
    recomputed(subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True))


@pytest.mark.parametrize("arithmetic", ["native", "auto"])
def test_a_host_run_is_recomputed_in_the_image(image: str, other: str, arithmetic: str, tmp_path: Path) -> None:
    """In torch's arithmetic with the image's torch, in the default one with whatever torch this Python has."""
    python = other if arithmetic == "native" else sys.executable
    done = launch(python, "run", *OPTIONS, "--arithmetic", arithmetic, "--run-dir", "run", where=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "check the evidence with: btard-launch verify run\n" in done.stdout
    shutil.rmtree(tmp_path / "run" / "logs")  # nothing that verify reads
    mount = f"{tmp_path / 'run'}:/tmp/run:ro"
    cluster = Cluster({})
    try:
        recomputed(cluster.compose("run", "--rm", "-v", mount, "verify", "/tmp/run"))
    finally:
        cluster.down()  # `run` has made the project's networks
    # The data of that run lay where this machine has it; the image has its own.
    assert str(directory(None)) in (tmp_path / "run" / "run.json").read_text()
