"""A task's own module as an ONNX graph, by torch's exporter: as it is evaluated, with the run's final parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from btard.node.errors import ConfigError
from btard.node.training.module_task import TrainedModule
from btard.node.training.task import Task


def graph(task: Task, tensors: Mapping[str, Tensor]) -> Any:
    """An `onnx.ModelProto` from `input` to `output`, both with any number of items in a batch.

    Args:
        task: whose module it is.
        tensors: the module's state dictionary, as a run ends with.

    Raises:
        ConfigError: the task has no module, or one that torch cannot export.
        ImportError: the package onnxscript, by which torch exports, is not installed.
    """
    if not isinstance(task, TrainedModule):
        raise ConfigError(f"task {task.name!r} has no ONNX form; mnist_cnn has one, and what ModuleTask made")
    import onnxscript  # noqa: F401  # by its name in a message, in place of torch's paragraphs

    inputs_B = task.examples(2)
    if not isinstance(inputs_B, Tensor):
        raise ConfigError(f"task {task.name!r}: its inputs are {type(inputs_B).__name__}, no tensor")
    model = task.blank()
    model.load_state_dict(dict(tensors))
    try:
        made = torch.onnx.export(
            model,
            (inputs_B,),
            dynamo=True,
            verbose=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("B")},),
        )
    except Exception as error:  # whatever of the user's module torch's compiler cannot follow
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"task {task.name!r}: torch cannot export its module: {line}") from error
    assert made is not None
    return made.model_proto
