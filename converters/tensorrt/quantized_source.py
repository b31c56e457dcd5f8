"""Bring a quantized ONNX model into the form that TensorRT reads: QDQ in int8 with all zero points 0.

uint8 around 128 is int8 around 0, exactly. A range that is not symmetric becomes the smallest symmetric one that holds
it, which costs up to a bit; the proof compares the result with the source. Weights become float32 with a pair of
QuantizeLinear and DequantizeLinear, and int32 biases float32, as `converters.tensorrt.quantization` writes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.onnx.cleanup import replace_all
from converters.onnx.quantized_graph import integer_operators_as_qdq
from runtimes.arrays import Array

_LARGEST = 127


def symmetric_qdq(proto: Any) -> Any:
    """Return a copy of the quantized `onnx.ModelProto` that TensorRT reads."""
    copy = integer_operators_as_qdq(proto)
    writer = _Writer(copy.graph)
    replace_all(copy.graph.node, [made for node in copy.graph.node for made in writer.write(node)])
    used = {name for node in copy.graph.node for name in node.input} | {value.name for value in copy.graph.output}
    replace_all(copy.graph.initializer, [tensor for tensor in copy.graph.initializer if tensor.name in used])
    del copy.graph.value_info[:]
    return copy


class _Writer:
    """Writes the nodes of one graph; scales and zero points are written once for each use."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}

    def write(self, node: Any) -> list[Any]:
        if node.op_type == "DequantizeLinear" and node.input[0] in self._constants:
            return self._constant(node)
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return self._symmetric(node)
        return [node]

    def _constant(self, node: Any) -> list[Any]:
        """Write a stored integer tensor as float32: a bias alone, weights with a pair of their own."""
        from onnx import helper

        stored, axis = self._values(node.input[0]), _axis(node)
        scale, zero = self._values(node.input[1]), self._zero(node, stored.dtype)
        real = _dequantize(stored, scale, zero, axis)
        result = node.output[0]
        if stored.dtype == np.int32:
            self._add(result, real)
            return []
        reach = np.abs(real).max(axis=tuple(i for i in range(real.ndim) if scale.ndim and i != axis % real.ndim))
        exact = stored.dtype == np.int8 and not zero.any()
        symmetric = scale if exact else _positive(np.asarray(reach)) / _LARGEST
        names = [self._add(f"{result}/real", real)]
        names += self._pair(result, symmetric)
        attributes = {"axis": axis} if np.ndim(symmetric) else {}
        return [
            helper.make_node("QuantizeLinear", names, [f"{result}/int8"], **attributes),
            helper.make_node("DequantizeLinear", [f"{result}/int8", *names[1:]], [result], **attributes),
        ]

    def _symmetric(self, node: Any) -> list[Any]:
        """Give a QuantizeLinear or DequantizeLinear the zero point 0.

        A quantizer also clamps: with zero point 0 in uint8 it does what a ReLU did before it, which is written again.
        """
        from onnx import helper

        scale = self._values(node.input[1]).astype(np.float64)
        zero = self._zero(node, np.dtype(np.uint8))
        limits = np.iinfo(zero.dtype)
        low, high = (limits.min - zero.astype(np.float64)) * scale, (limits.max - zero.astype(np.float64)) * scale
        is_exact = bool((zero == (128 if zero.dtype == np.uint8 else 0)).all())
        result = node.output[0]
        before = []
        if not is_exact:
            scale = np.maximum(-low, high) / _LARGEST
            if node.op_type == "QuantizeLinear" and not (low == -high).all():
                before = [self._clamp(node, low, high)]
        node.input[1:] = self._pair(result, scale)
        if before:
            node.input[0] = f"{result}/clamped"
        return [*before, helper.make_node(node.op_type, node.input, node.output, node.name, **_attributes(node))]

    def _clamp(self, node: Any, low: Array, high: Array) -> Any:
        from onnx import helper

        source, result = node.input[0], f"{node.output[0]}/clamped"
        if (low == 0).all():
            return helper.make_node("Relu", [source], [result])
        bounds = [
            self._add(f"{node.output[0]}/{name}", np.asarray(value, np.float32).reshape(-1)[0].reshape(()))
            for name, value in (("low", low), ("high", high))
        ]
        return helper.make_node("Clip", [source, *bounds], [result])

    def _pair(self, name: str, scale: Array) -> list[str]:
        scale = np.asarray(scale, np.float32)
        zero = np.zeros(scale.shape, np.int8)
        return [self._add(f"{name}/scale", scale), self._add(f"{name}/zero", zero)]

    def _zero(self, node: Any, dtype: Any) -> Array:
        if len(node.input) > 2 and node.input[2]:
            return self._values(node.input[2])
        return np.zeros((), dtype)

    def _values(self, name: str) -> Array:
        from onnx import numpy_helper

        return np.asarray(numpy_helper.to_array(self._constants[name]))

    def _add(self, name: str, values: Array) -> str:
        from onnx import numpy_helper

        self._graph.initializer.append(
            numpy_helper.from_array(np.ascontiguousarray(values).reshape(values.shape), name)
        )
        return name


def _axis(node: Any) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 1)


def _attributes(node: Any) -> dict[str, int]:
    return {one.name: int(one.i) for one in node.attribute if one.name == "axis"}


def _dequantize(stored: Array, scale: Array, zero: Array, axis: int) -> Array:
    if scale.ndim:
        shape = [-1 if place == axis % stored.ndim else 1 for place in range(stored.ndim)]
        scale, zero = scale.reshape(shape), zero.reshape(shape) if zero.ndim else zero
    real: Array = ((stored.astype(np.float64) - zero.astype(np.float64)) * scale).astype(np.float32)
    return real


def _positive(values: Array) -> Array:
    return np.where(values > 0, values, 1.0)
