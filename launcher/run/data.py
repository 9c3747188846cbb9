"""Data sets: where they lie, which task needs which, and getting them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from btard.node.config import RunConfig
from btard.node.errors import ConfigError, DataError
from btard.node.nearest import suggestion

Report = Callable[[str], None]
SETS = ("mnist", "cifar10")
TASK_SETS: Mapping[str, str] = {"mnist_cnn": "mnist", "cifar10_resnet18": "cifar10"}


def directory(chosen: str | None) -> Path:
    """The data directory: the chosen one, else `$XDG_CACHE_HOME/btard/data`, else `~/.cache/btard/data`."""
    if chosen is not None:
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "btard" / "data"


def lies_in(run: RunConfig, where: Path) -> bool:
    """True if a run's data set lies there whole and intact; a task without one finds it anywhere."""
    name = TASK_SETS.get(run.task.name)
    try:
        if name is not None:
            check(name, where)
    except DataError:
        return False
    return True


def check(name: str, where: Path) -> None:
    """Verify a prepared data set, byte for byte.

    Raises:
        ConfigError: no such data set.
        DataError: a file is missing, truncated or corrupt.
    """
    _known(name)
    from btard.node.training.datasets import cifar10, mnist

    (mnist if name == "mnist" else cifar10).check(where)


def prepare(name: str, where: Path, report: Report) -> bool:
    """Fetch a data set unless it is there and intact; True if files were written.

    Raises:
        ConfigError: no such data set.
        DataError: no source could deliver it.
        BackendError: the directory cannot be written.
    """
    _known(name)
    from btard.node.training.datasets.prepare import prepare_mnist
    from btard.node.training.datasets.prepare_cifar10 import prepare_cifar10

    return prepare_mnist(where, report) if name == "mnist" else prepare_cifar10(where, report)


def provide(run: RunConfig, where: Path, download: bool, report: Report) -> None:
    """Make sure that a run's data set is there; tasks without one need nothing.

    Raises:
        DataError: it is missing or corrupt and may not, or cannot, be fetched.
        BackendError: the directory cannot be written.
    """
    name = TASK_SETS.get(run.task.name)
    if name is None:
        return
    try:
        check(name, where)
    except DataError:
        if not download:
            raise
        prepare(name, where, report)


def _known(name: str) -> None:
    if name not in SETS:
        raise ConfigError(f"unknown data set {name!r}; {suggestion(name, SETS)}")
