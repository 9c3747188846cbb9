"""`btard-launch export`: writes the formats that were asked for."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btard.launcher.files import IN_A_RUN, write_atomically
from btard.launcher.report import run_data
from btard.launcher.run import run_directory
from btard.node.errors import BackendError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from btard.launcher.run.run_directory import RunRecord

ONNX, LOGS, TRACE = "model.onnx", "tensorboard", "trace.json"
_INSTALL = "run `pip install '.[export]'` in the clone"


def export(
    run_dir: Path, *, onnx: bool, tensorboard: bool, perfetto: bool = False, imports: Sequence[Path] = ()
) -> Iterator[Path]:
    """Write them into the run directory; yields each path.

    Args:
        run_dir: of a finished run.
        onnx, tensorboard, perfetto: what is wanted.
        imports: files that the run was made with, if the caller trusts them: an own model is in one.

    Raises:
        ConfigError: no finished run, or its task has no ONNX form, or a file of the run's is not loaded, or no step was
            committed that could be traced.
        BackendError: a package is missing, or nothing can be written.
        DataError: a file of the run is damaged.
    """
    if onnx:
        yield _onnx(run_dir, imports)
    if tensorboard:
        yield write_logs(run_dir)
    if perfetto:
        from btard.launcher.export.perfetto import trace

        write_atomically(
            target := run_dir / TRACE, json.dumps(trace(run_data.load_either(run_dir))).encode(), option=IN_A_RUN
        )
        yield target


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


def _onnx(run_dir: Path, imports: Sequence[Path]) -> Path:
    import torch

    record = run_directory.read_record(run_dir)
    graph = _graph(record, imports)
    file = run_dir / "model.pt"
    try:
        tensors = torch.load(file, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise DataError(f"cannot read {file}: {error}; has the run finished?") from error
    try:
        model = graph(tensors)
    except ImportError as error:
        raise BackendError(f"ONNX files need the package {error.name}; {_INSTALL}") from error
    write_atomically(run_dir / ONNX, model.SerializeToString(), option=IN_A_RUN)
    return run_dir / ONNX


def _graph(record: RunRecord, imports: Sequence[Path]) -> Callable[[Mapping[str, Tensor]], Any]:
    """What makes an ONNX model of the tensors in model.pt: of the report's network by hand, else of a task's module."""
    import msgspec

    from btard.launcher.export import lenet_onnx, module_onnx
    from btard.node.build import task_of
    from btard.node.plugins import extensions

    if record.run.task.name == "mnist_cnn":
        return lenet_onnx.graph
    extensions.load(imports)
    task = task_of(msgspec.structs.replace(record.run, device="cpu"), Path(record.data_directory))
    return partial(module_onnx.graph, task)
