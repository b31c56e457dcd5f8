"""Quantize the weights of convolutions and matrix products in an ONNX fp32 model (w8).

Weights become int8 with one scale for each output; everything else stays float.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.onnx.cleanup import replace_all
from runtimes.arrays import Array

# Operator → index of its weight among the inputs, and the weight's axis of outputs.
_WEIGHTS = {"Conv": (1, 0), "ConvTranspose": (1, 1), "Gemm": (1, 1), "MatMul": (1, -1)}
_MIN_ELEMENTS = 256  # below, the scales take up what int8 weights save


def to_int8_weights(model: Any) -> None:
    """Replace the float weights of an `onnx.ModelProto` by int8 weights and a DequantizeLinear, in place."""
    from onnx import TensorProto

    graph = model.graph
    constants = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    done: dict[tuple[str, int], str] = {}
    nodes: list[Any] = []
    for node in graph.node:
        index, axis = _place(node)
        name = node.input[index] if 0 <= index < len(node.input) else ""
        if name in constants and np.prod(constants[name].dims) >= _MIN_ELEMENTS and len(constants[name].dims) > 1:
            axis %= len(constants[name].dims)
            if (name, axis) not in done:
                nodes.append(_quantize(graph, constants[name], axis))
                done[name, axis] = nodes[-1].output[0]
            node.input[index] = done[name, axis]
        nodes.append(node)
    replace_all(graph.node, nodes)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    replace_all(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])


def _place(node: Any) -> tuple[int, int]:
    index, axis = _WEIGHTS.get(node.op_type, (-1, 0))
    if node.op_type == "Gemm" and any(one.name == "transB" and one.i for one in node.attribute):
        axis = 0
    return index, axis


def _quantize(graph: Any, tensor: Any, axis: int) -> Any:
    """Add the int8 weight and its scales to the graph. Returns the node that dequantizes it."""
    from onnx import helper, numpy_helper

    values, scales = _round(numpy_helper.to_array(tensor), axis)
    name = f"{tensor.name}/{axis}"
    parts = {f"{name}/int8": values, f"{name}/scale": scales, f"{name}/zero": np.zeros(len(scales), np.int8)}
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
    return helper.make_node("DequantizeLinear", list(parts), [f"{name}/float"], f"{name}/dequantize", axis=axis)


def _round(values: Array, axis: int) -> tuple[Array, Array]:
    """Return symmetric int8 values, −127 to 127, and one scale for each slice along `axis`."""
    others = tuple(one for one in range(values.ndim) if one != axis)
    scales = np.abs(values).max(axis=others).astype(np.float32) / np.float32(127)
    scales[scales == 0] = 1
    shape = [-1 if one == axis else 1 for one in range(values.ndim)]
    return np.clip(np.round(values / scales.reshape(shape)), -127, 127).astype(np.int8), scales
