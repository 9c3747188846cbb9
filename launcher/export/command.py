"""`btard-launch export`: writes the formats that were asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from btard.launcher.files import write_atomically
from btard.launcher.report import run_data
from btard.launcher.run import run_directory
from btard.node.errors import BackendError, ConfigError, DataError

ONNX, LOGS = "model.onnx", "tensorboard"
_INSTALL = "run `pip install '.[export]'` in the clone"


def export(run_dir: Path, onnx: bool, tensorboard: bool) -> Iterator[Path]:
    """Write them into the run directory; yields each path.

    Raises:
        ConfigError: no finished run, or its task has no ONNX form.
        BackendError: a package is missing, or nothing can be written.
        DataError: a file of the run is damaged.
    """
    if onnx:
        yield _onnx(run_dir)
    if tensorboard:
        yield write_logs(run_dir)


def check_tensorboard() -> None:
    """Refuse event files before anything is run for them.

    Raises:
        BackendError: their package is missing.
    """
    if importlib.util.find_spec("tensorboard") is None:
        raise BackendError(f"TensorBoard files need the package tensorboard; {_INSTALL}")


def write_logs(run_dir: Path) -> Path:
    """TensorBoard's event files; returns their directory."""
    check_tensorboard()
    from btard.launcher.export import tensorboard_logs

    target = run_dir / LOGS
    tensorboard_logs.write(run_data.load(run_dir), target)
    return target


def _onnx(run_dir: Path) -> Path:
    import torch

    record = run_directory.read_record(run_dir)
    graphs = _graphs()
    task = record.run.task.name
    if task not in graphs:
        raise ConfigError(f"task {task!r} has no ONNX form; only {', '.join(graphs)} has one")
    file = run_dir / "model.pt"
    try:
        tensors = torch.load(file, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot read {file}: {error}; has the run finished?") from error
    parameters_D = torch.cat([tensor.flatten() for tensor in tensors.values()])
    try:
        model = graphs[task](parameters_D)
    except ImportError as error:
        raise BackendError(f"ONNX files need the package onnx; {_INSTALL}") from error
    write_atomically(run_dir / ONNX, model.SerializeToString())
    return run_dir / ONNX


def _graphs() -> dict[str, Callable[[Any], Any]]:
    from btard.launcher.export import lenet_onnx

    return {"mnist_cnn": lenet_onnx.graph}
