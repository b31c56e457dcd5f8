"""ONNX fp32 → w8: the weights of convolutions and products as int8, one scale for each output; all else stays float."""

from __future__ import annotations

from typing import Any

import numpy as np

from runtimes.arrays import Array

# Operator → the input that is its weight, and the axis of its outputs there.
_WEIGHTS = {"Conv": (1, 0), "ConvTranspose": (1, 1), "Gemm": (1, 1), "MatMul": (1, -1)}
_LEAST = 256  # values: below, the scales take what the weights save


def to_int8_weights(model: Any) -> None:
    """Put int8 weights and a DequantizeLinear in the place of float weights of an `onnx.ModelProto`, in place."""
    from onnx import TensorProto

    graph = model.graph
    constants = {t.name: t for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    done: dict[tuple[str, int], str] = {}
    nodes: list[Any] = []
    for node in graph.node:
        index, axis = _place(node)
        name = node.input[index] if 0 <= index < len(node.input) else ""
        if name in constants and np.prod(constants[name].dims) >= _LEAST and len(constants[name].dims) > 1:
            axis %= len(constants[name].dims)
            if (name, axis) not in done:
                nodes.append(_quantised(graph, constants[name], axis))
                done[name, axis] = nodes[-1].output[0]
            node.input[index] = done[name, axis]
        nodes.append(node)
    _replace(graph.node, nodes)
    used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])


def _place(node: Any) -> tuple[int, int]:
    index, axis = _WEIGHTS.get(node.op_type, (-1, 0))
    if node.op_type == "Gemm" and any(one.name == "transB" and one.i for one in node.attribute):
        axis = 0
    return index, axis


def _quantised(graph: Any, tensor: Any, axis: int) -> Any:
    """Add the weight in int8 with its scales to the graph; returns the node that gives it back in float."""
    from onnx import helper, numpy_helper

    values, scales = _rounded(numpy_helper.to_array(tensor), axis)
    name = f"{tensor.name}/{axis}"
    parts = {f"{name}/int8": values, f"{name}/scale": scales, f"{name}/zero": np.zeros(len(scales), np.int8)}
    graph.initializer.extend(numpy_helper.from_array(array, part) for part, array in parts.items())
    return helper.make_node("DequantizeLinear", list(parts), [f"{name}/float"], f"{name}/dequantize", axis=axis)


def _rounded(values: Array, axis: int) -> tuple[Array, Array]:
    """Symmetric int8 values, −127 to 127, and one scale for each slice along `axis`."""
    others = tuple(one for one in range(values.ndim) if one != axis)
    scales = np.abs(values).max(axis=others).astype(np.float32) / np.float32(127)
    scales[scales == 0] = 1
    shape = [-1 if one == axis else 1 for one in range(values.ndim)]
    return np.clip(np.round(values / scales.reshape(shape)), -127, 127).astype(np.int8), scales


def _replace(field: Any, values: list[Any]) -> None:
    copies = [type(value).FromString(value.SerializeToString(deterministic=True)) for value in values]
    del field[:]
    field.extend(copies)
