"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from btard.node.adversary.registry import ATTACKS
from btard.node.aggregation.registry import PRE_AGGREGATIONS, RULES
from btard.node.plugins import extensions
from btard.node.plugins.registry import Registry
from btard.node.training import environment
from btard.node.training.datasets.prepare import prepare_mnist
from btard.node.training.registry import OPTIMISERS, SCHEDULES, SPLITS, TASKS
from tests import cifar
from tests.monitored import monitored as monitored

environment.pin("cpu")  # tests compute as the workers do

# Hypothesis's own profile for CI repeats the same examples for ever. Here every run looks at new ones, a failing one is
# printed with what replays it, and no test depends on how long anything takes.
settings.register_profile(
    "btard", deadline=None, derandomize=False, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("btard")


SLOW_S = 1800
"""How long a slow test may take before it counts as one that hangs."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give slow tests, of which some search, more time than others have."""
    for item in items:
        if item.get_closest_marker("slow") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SLOW_S))


@pytest.fixture
def cifar_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with 20 images in each batch of CIFAR-10's format."""
    return cifar.write(tmp_path, 20, monkeypatch)


@pytest.fixture(scope="session")
def mnist_directory() -> Path:
    """The data directory with the real MNIST in it: the default one, prepared on first use and kept."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = cache / "btard" / "data"
    prepare_mnist(directory)
    return directory


@pytest.fixture
def scratch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Registries, loaded files and modules are afterwards what they were before, whatever a test adds."""
    registries: tuple[Registry[Any], ...] = (ATTACKS, RULES, PRE_AGGREGATIONS, TASKS, OPTIMISERS, SCHEDULES, SPLITS)
    for registry in registries:
        monkeypatch.setattr(registry, "_entries", {entry.name: entry for entry in registry})
    monkeypatch.setattr(extensions, "_loaded", set(extensions._loaded))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith("btard_import_"):
            del sys.modules[name]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opened."""
    with ExitStack() as stack:
        yield stack
