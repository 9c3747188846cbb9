"""Prometheus's own programs, for tests that need them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`; a test without it is skipped, but in CI it fails."""
    found = shutil.which(name)
    if found is None:
        problem = f"{name} is not installed (Debian: apt-get install prometheus)"
        if os.environ.get("CI"):
            pytest.fail(problem)
        pytest.skip(problem)
    return found


def promtool(*arguments: str | Path, where: Path | None = None) -> tuple[int, str]:
    """Exit code and output of promtool."""
    done = subprocess.run(
        [program("promtool"), *map(str, arguments)], cwd=where, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr
