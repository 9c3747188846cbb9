"""`--init FILE`: initial parameters from a run's model.pt or parameters.f32, put where every worker finds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from btard.launcher.files import disk_error, write_atomically
from btard.node.errors import ConfigError, WireError

if TYPE_CHECKING:
    from torch import Tensor

    from btard.node.training.task import Layer


def load(path: Path, layout: Sequence[Layer], buffers: frozenset[str] = frozenset()) -> Tensor:
    """The parameters in a file, float32 `[D]`.

    Args:
        path: a state dictionary of the task's tensors (`.pt`), or raw little-endian float32 in their order.
        layout: the task's tensors.
        buffers: names that may stand beside them and are not read: buffers follow from parameters and data.

    Raises:
        ConfigError: it cannot be read, or holds other tensors than the task's.
    """
    from btard.node.protocol.evidence.format import tensor_of
    from btard.node.training.start import usable

    dimension = layout[-1].stop
    try:
        if path.stat().st_size > 16 * dimension + (1 << 20):
            raise ConfigError(f"--init {path} is larger than the task's {dimension} parameters; name another file")
        parameters_D = _of_model(path, layout, buffers) if path.suffix == ".pt" else tensor_of(path.read_bytes())
    except OSError as error:
        raise ConfigError(
            f"--init {path} cannot be read: {error.strerror}; name a model.pt or parameters.f32"
        ) from error
    except WireError as error:
        raise ConfigError(
            f"--init {path} holds no float32 values: {error}; name a model.pt or parameters.f32"
        ) from error
    if parameters_D.numel() != dimension:
        raise ConfigError(f"--init {path} holds {parameters_D.numel()} parameters, and the task has {dimension}")
    if not usable(parameters_D):
        raise ConfigError(f"--init {path} has entries that are not finite or beyond 2^40; name another file")
    return parameters_D


def provide(parameters_D: Tensor, digest: str, data_directory: Path) -> None:
    """Put the parameters beside the data sets, under their digest.

    Raises:
        BackendError: the directory cannot be written.
    """
    from btard.node.training.start import place

    target = place(data_directory, digest)
    if target.exists():
        return
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, target, "--data-dir") from error
    write_atomically(target, parameters_D.numpy().astype("<f4").tobytes(), option="--data-dir")


def _of_model(path: Path, layout: Sequence[Layer], buffers: frozenset[str]) -> Tensor:
    import torch

    try:
        found = torch.load(path, weights_only=True, map_location="cpu")
        lacking = next((layer.name for layer in layout if layer.name not in found), None)
        if lacking is not None:
            raise ConfigError(
                f"--init {path} has no tensor {lacking!r}, which this task's model has; name a model.pt of this task"
            )
        named = {layer.name: found[layer.name] for layer in layout}
        shapes = {name: (tuple(each.shape), each.dtype) for name, each in named.items()}
    except (OSError, ConfigError):
        raise
    except Exception as error:  # whatever a strange file makes of the reader
        raise ConfigError(
            f"--init {path} is no model of this task ({type(error).__name__}); name its model.pt"
        ) from error
    if (
        shapes != {layer.name: (layer.shape, torch.float32) for layer in layout}
        or found.keys() - named.keys() - buffers
    ):
        raise ConfigError(f"--init {path} holds other tensors than the task's; name a model.pt of the same task")
    return torch.cat([named[layer.name].flatten() for layer in layout])
