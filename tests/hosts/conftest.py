"""The hosts that these tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hosts.lab import Lab, lacking

REQUIRED = "HOSTS_REQUIRED"
"""Where this is set, as in CI, a machine that cannot make hosts is a failure and not a reason to skip."""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Three hosts."""
    problem = lacking()
    if problem is not None:
        if os.environ.get(REQUIRED):
            pytest.fail(f"tests on several hosts are required here: {problem}")
        pytest.skip(f"NOT RUN, tests on several hosts: {problem}")
    with Lab(("alpha", "beta", "gamma"), tmp_path).running() as lab:
        yield lab
