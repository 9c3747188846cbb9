"""What CI finds on the machine that it runs on."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).parent.parent
ENGINE = ROOT / ".ci" / "engine"


def script(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("own", "docker", "code", "said"),
    [
        ("echo export DOCKER_HOST=unix:///own", "exit 1", 0, "export DOCKER_HOST=unix:///own\n"),
        ("exit 7", "exit 0", 7, ""),
        (None, '[ "$1" = info ] || exit 1', 0, ""),
        (None, "exit 1", 1, ""),
        (None, None, 1, ""),
    ],
    ids=["its own", "its own fails", "whatever answers", "none answers", "no docker"],
)
def test_an_engine_is_found_or_its_absence_is_said(
    own: str | None, docker: str | None, code: int, said: str, tmp_path: Path
) -> None:
    starter = tmp_path / "starter"
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("bash", "sh"):
        (programs / name).symlink_to(str(shutil.which(name)))
    if own is not None:
        script(starter, own)
    if docker is not None:
        script(programs / "docker", docker)
    found = subprocess.run(
        [programs / "bash", ENGINE, starter], env={"PATH": str(programs)}, capture_output=True, text=True, timeout=30
    )
    assert (found.returncode, found.stdout) == (code, said)
    assert ("no container engine" in found.stderr) is (code == 1)
    assert found.stderr.count("\n") == (code == 1)


ALL = (
    "python3",
    "make",
    "cc",
    "prometheus",
    "promtool",
    "tc",
    "iptables",
    "dnsmasq",
    "spin",
    "qemu-x86_64",
    "qemu-aarch64",
    "munged",
    "slurmctld",
    "slurmd",
    "srun",
    "aarch64-linux-gnu-gcc",
)
EMULATORS = "qemu-user munge slurmctld slurmd slurm-client gcc-aarch64-linux-gnu libc6-dev-arm64-cross"


@pytest.mark.parametrize(
    ("there", "system", "lacking"),
    [
        ((*ALL, "chromium"), "debian", ""),
        ((*ALL, "google-chrome"), "ubuntu", ""),
        (ALL, "debian", "chromium"),
        (ALL, "ubuntu", "chromium-browser"),
        ((*ALL[:4], "tc", "chromium"), "debian", f"prometheus iptables dnsmasq-base spin {EMULATORS}"),
        (
            (),
            "debian",
            f"python3-venv make gcc libc6-dev prometheus chromium iproute2 iptables dnsmasq-base spin {EMULATORS}",
        ),
    ],
    ids=["it has all", "a runner with Chrome", "no browser", "no browser on Ubuntu", "half of Prometheus", "bare"],
)
def test_what_a_machine_lacks_is_named_as_its_packages(
    there: tuple[str, ...], system: str, lacking: str, tmp_path: Path
) -> None:
    programs, release = tmp_path / "bin", tmp_path / "os-release"
    programs.mkdir()
    for name in ("bash", "grep"):
        (programs / name).symlink_to(str(shutil.which(name)))
    for name in there:
        script(programs / name, "exit 0")
    release.write_text(f"NAME=x\nID={system}\n")
    found = subprocess.run(
        [programs / "bash", ROOT / ".ci" / "packages"],
        env={"PATH": str(programs), "OS_RELEASE": str(release)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (found.returncode, found.stdout, found.stderr) == (0, f"{lacking}\n", "")


def test_hypothesis_looks_at_new_examples_and_prints_how_to_replay_one() -> None:
    """Its own profile, chosen where CI is set, would look at the same ones in every run."""
    chosen = settings()
    assert (chosen.derandomize, chosen.print_blob, chosen.deadline) == (False, True, None)
    fixed = [str(path) for path in (ROOT / "tests").rglob("test_*.py") if "derandomize" + "=" in path.read_text()]
    assert not fixed


def test_the_whole_is_given_an_hour_at_most() -> None:
    (minutes,) = re.findall(r"total_minutes=(\d+)", (ROOT / ".ci" / "run").read_text())
    assert int(minutes) <= 60


def test_a_test_that_hangs_ends(pytestconfig: pytest.Config) -> None:
    assert 0 < float(pytestconfig.getini("timeout")) < float(pytestconfig.getini("faulthandler_timeout"))
    assert pytestconfig.getini("faulthandler_exit_on_timeout")
