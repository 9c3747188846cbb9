"""The engine and the image that all container tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from btard.launcher.containers import engine
from btard.node.errors import BackendError
from tests.containers.cluster import Cluster

REQUIRED = "CONTAINERS_REQUIRED"
"""Where this is set, as in CI, a missing engine is a failure and not a reason to skip."""

ATTACKED = {"BTARD_ATTACK": "noise", "BTARD_BYZANTINE": "2", "BTARD_ATTACK_START": "150", "BTARD_STEPS": "250",
            "BTARD_BATCH_SIZE": "64", "BTARD_EVAL_EVERY": "50"}  # fmt: skip
HONEST = {
    "BTARD_ATTACK": "",
    "BTARD_STEPS": "20000",
    "BTARD_BATCH_SIZE": "32",
    "BTARD_EVAL_EVERY": "200",
    "BTARD_DELIVERY_BOUND": "2s",
}


@pytest.fixture(scope="session")
def image() -> str:
    """The image, built; its name."""
    try:
        engine.find()
    except BackendError as error:
        if os.environ.get(REQUIRED):
            pytest.fail(f"container tests are required here: {error}")
        pytest.skip(str(error))
    Cluster({}).compose("build", "roles")
    return "btard:cpu"


def _cluster(settings: dict[str, str], wait: bool = False) -> Iterator[Cluster]:
    cluster = Cluster(settings)
    try:
        cluster.up(wait)
        yield cluster
    finally:
        cluster.down()


@pytest.fixture(scope="module")
def attacked(image: str) -> Iterator[Cluster]:
    """A short run under attack."""
    yield from _cluster(ATTACKED)


@pytest.fixture(scope="module")
def honest(image: str) -> Iterator[Cluster]:
    """A run without attackers that does not end by itself."""
    yield from _cluster(HONEST, wait=True)
