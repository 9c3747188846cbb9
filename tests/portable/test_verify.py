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
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="torch has no other kernels here")
@pytest.mark.parametrize(
    ("task", "arithmetic", "proof"),
    [
        pytest.param("mnist_cnn", "portable", "recomputation", marks=pytest.mark.mnist),
        pytest.param("mnist_cnn", "native", "majority", marks=pytest.mark.mnist),
        ("transformer_lm:context_length=20,width=20", "portable", "recomputation"),
    ],
)
def test_a_ban_is_recomputed_elsewhere(
    task: str, arithmetic: str, proof: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if task == "mnist_cnn":
        request.getfixturevalue("mnist_directory")
    launch(*RUN, "--task", task, "--arithmetic", arithmetic, "--run-dir", str(tmp_path / "run"))
    printed = launch("verify", str(tmp_path / "run"), **OTHER_KERNELS)
    assert f"ban of peer 4 at step 10: {proof}: " in printed
    assert ("no recomputation in another environment" in printed) is (arithmetic == "native")
