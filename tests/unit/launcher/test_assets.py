"""Data beside the code is found in the clone and in a wheel installed elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from btard.launcher.assets import asset
from btard.node.errors import BackendError

ROOT = Path(__file__).parents[3]
WANTED = ("dashboards/overview.json", "dashboards/node.json", "deploy/prometheus/prometheus.yml",
          "deploy/prometheus/rules/alerts.yml", "deploy/grafana/provisioning/dashboards/btard.yml",
          "dashboards/kustomization.yaml", "deploy/kubernetes/base/run.toml", "deploy/slurm/btard.sbatch")  # fmt: skip


def test_the_clone_has_it() -> None:
    assert asset("deploy", "prometheus") == ROOT / "deploy" / "prometheus"


def test_what_is_missing_is_named_with_what_to_do() -> None:
    with pytest.raises(BackendError, match=r"deploy/nothing is missing from this installation.*install again"):
        asset("deploy", "nothing")


def test_an_installed_wheel_brings_it_along(tmp_path: Path) -> None:
    built = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    pure = {**os.environ, "PATH": str(tmp_path)}  # no compiler, which takes seconds
    subprocess.run(built, cwd=ROOT, env=pure, check=True, capture_output=True, text=True)
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:  # all that an installer does with it
        archive.extractall(site)
    script = (
        "import sys; from btard.launcher.assets import asset\n"
        "for name in sys.argv[1:]: print(asset(*name.split('/')).read_text() and asset(*name.split('/')))"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-c", script, *WANTED], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [str(site / "btard" / "launcher" / "_assets" / name) for name in WANTED]
