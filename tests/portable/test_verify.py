"""A run in portable arithmetic is recomputed where torch has other kernels than the run had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

OTHER_KERNELS = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE"}
RUN = [
    "--backend",
    "simulated",
    "-n",
    "5",
    "--attack",
    "sign_flip",
    "--byzantine",
    "1",
    "--attack-start",
    "0",
    "--steps",
    "14",
    "--batch-size",
    "17",
    "--eval-every",
    "14",
]


def launch(*words: str, **variables: str) -> str:
    """What `btard-launch` prints."""
    command = [sys.executable, "-m", "btard.launcher", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env={**os.environ, **variables})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.mnist
@pytest.mark.usefixtures("mnist_directory")
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch has no other kernels here")
@pytest.mark.parametrize(("arithmetic", "proof"), [("portable", "recomputation"), ("native", "majority")])
def test_a_ban_is_recomputed_elsewhere(arithmetic: str, proof: str, tmp_path: Path) -> None:
    launch(*RUN, "--arithmetic", arithmetic, "--run-dir", str(tmp_path / "run"))
    printed = launch("verify", str(tmp_path / "run"), **OTHER_KERNELS)
    assert f"ban of peer 4 at step 10: {proof}: " in printed
    assert ("no recomputation in another environment" in printed) is (arithmetic == "native")
