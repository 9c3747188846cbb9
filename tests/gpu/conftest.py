"""The card that all tests here share."""

from __future__ import annotations

import os

import pytest
import torch

REQUIRED = "GPU_REQUIRED"
"""Where this is set, a missing GPU is a failure and not a reason to skip."""


@pytest.fixture(autouse=True, scope="session")
def card() -> str:
    """The GPU's name."""
    if not torch.cuda.is_available():
        problem = "torch finds no GPU here: no test of tests/gpu was run"
        if os.environ.get(REQUIRED):
            pytest.fail(problem)
        pytest.skip(problem)
    return torch.cuda.get_device_name()
