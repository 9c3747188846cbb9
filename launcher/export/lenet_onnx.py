"""The report's network as an ONNX graph, for Netron and for other runtimes; without dropout, as it is evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from btard.node.training.models.lenet import LAYOUT

OPSET, IR_VERSION = 17, 8
"""Old enough for every runtime in use, new enough for all of these operators."""


def graph(tensors: Mapping[str, Tensor]) -> Any:
    """An `onnx.ModelProto` from normalised images float32 `[B, 1, 28, 28]` to logits `[B, 10]`.

    Args:
        tensors: the network's, by name, as a run ends with.

    Raises:
        ImportError: the package onnx is not installed.
    """
    from onnx import TensorProto, helper, numpy_helper

    weights = [numpy_helper.from_array(tensors[layer.name].contiguous().numpy(), layer.name) for layer in LAYOUT]
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "conv1.weight", "conv1.bias"], ["conv1"], kernel_shape=[5, 5]),
        node("MaxPool", ["conv1"], ["pool1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Relu", ["pool1"], ["relu1"]),
        node("Conv", ["relu1", "conv2.weight", "conv2.bias"], ["conv2"], kernel_shape=[5, 5]),
        node("MaxPool", ["conv2"], ["pool2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Relu", ["pool2"], ["relu2"]),
        node("Flatten", ["relu2"], ["flat"]),
        node("Gemm", ["flat", "fc1.weight", "fc1.bias"], ["fc1"], transB=1),
        node("Relu", ["fc1"], ["relu3"]),
        node("Gemm", ["relu3", "fc2.weight", "fc2.bias"], ["logits"], transB=1),
    ]
    images = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["B", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["B", 10])
    made = helper.make_graph(nodes, "mnist_cnn", [images], [logits], weights)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION,
                             producer_name="btard")  # fmt: skip
