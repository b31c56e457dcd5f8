"""Small TFLite models for the tests of the Edge TPU's rules, written with LiteRT's own schema."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.check.report import Report
from converters.edgetpu.mapping import check_edgetpu

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")
flatbuffers = pytest.importorskip("flatbuffers")
_OUTSIDE = 4096  # where the data of buffers begin that do not stand inline

CHANNELS = 16


@dataclass
class T:
    """A tensor to build: computed where it has no values, a constant otherwise."""

    shape: tuple[int, ...] = (1, 8, 8, CHANNELS)
    values: Any = None
    dtype: str = "int8"
    scales: tuple[float, ...] = (0.1,)
    zero: int = 0
    variable: bool = False
    signature: tuple[int, ...] | None = None
    inline: bool = True


@dataclass
class Op:
    """An operator to build: inputs and outputs are tensors; the same object is the same tensor."""

    name: str
    inputs: list[T | None]
    outputs: list[T] = field(default_factory=lambda: [T()])
    options: Any = None
    version: int = 1


def numbers(*values: int, dtype: str = "int32") -> T:
    return T((len(values),), np.array(values, dtype), dtype, ())


def weights(*shape: int) -> T:
    return T(shape, np.ones(shape, np.int8))


def options(kind: str, **values: Any) -> Any:
    made = getattr(schema, f"{kind}T")()
    for name, value in values.items():
        assert hasattr(made, name), name
        setattr(made, name, value)
    return made


class Builder:
    """Writes a TFLite file with LiteRT's own schema."""

    def __init__(self, ops: list[Op]) -> None:
        self.tensors: list[T] = []
        self.ops = ops
        self.outside = b""

    def index(self, tensor: T | None) -> int:
        if tensor is None:
            return -1
        for place, known in enumerate(self.tensors):
            if known is tensor:
                return place
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def write(self, path: Path) -> Path:
        model, graph = schema.ModelT(), schema.SubGraphT()
        model.version, model.operatorCodes, model.buffers = 3, [], [schema.BufferT()]
        graph.operators = [self.operator(model, op) for op in self.ops]
        made = {id(tensor) for op in self.ops for tensor in op.outputs}
        used = [tensor for op in self.ops for tensor in op.inputs if tensor]
        graph.inputs = [self.index(one) for one in used if one.values is None and id(one) not in made]
        graph.outputs = [self.index(one) for op in self.ops[-1:] for one in op.outputs]
        graph.tensors = [self.tensor(model, one, place) for place, one in enumerate(self.tensors)]
        model.subgraphs = [graph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), b"TFL3")
        content = bytes(builder.Output())
        path.write_bytes(content.ljust(_OUTSIDE, b"\0") + self.outside if self.outside else content)
        return path

    def operator(self, model: Any, op: Op) -> Any:
        code, made = schema.OperatorCodeT(), schema.OperatorT()
        builtin = getattr(schema.BuiltinOperator, op.name, schema.BuiltinOperator.CUSTOM)
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), op.version
        if builtin == schema.BuiltinOperator.CUSTOM:
            code.customCode = op.name
        model.operatorCodes.append(code)
        made.opcodeIndex = len(model.operatorCodes) - 1
        made.inputs, made.outputs = [self.index(one) for one in op.inputs], [self.index(one) for one in op.outputs]
        if op.options is not None:
            made.builtinOptions = op.options
            made.builtinOptionsType = getattr(schema.BuiltinOptions, type(op.options).__name__[:-1])
        return made

    def tensor(self, model: Any, tensor: T, place: int) -> Any:
        made, scale = schema.TensorT(), schema.QuantizationParametersT()
        made.shape, made.type = list(tensor.shape), getattr(schema.TensorType, tensor.dtype.upper())
        made.name, made.isVariable, made.shapeSignature = f"t{place}", tensor.variable, tensor.signature
        if tensor.scales:
            scale.scale, scale.zeroPoint = list(tensor.scales), [tensor.zero] * len(tensor.scales)
            made.quantization = scale
        if tensor.values is not None:
            buffer = schema.BufferT()
            content = np.ascontiguousarray(tensor.values)
            if tensor.inline:
                buffer.data = np.frombuffer(content.tobytes(), np.uint8)  # a list is packed byte by byte
            else:
                buffer.offset, buffer.size = _OUTSIDE, content.nbytes
                self.outside = content.tobytes()
            model.buffers.append(buffer)
            made.buffer = len(model.buffers) - 1
        return made


def checked(tmp_path: Path, *ops: Op) -> Report:
    return check_edgetpu(Builder(list(ops)).write(tmp_path / "model.tflite"))


def placed(tmp_path: Path, *ops: Op) -> list[str]:
    return [node.placement for node in checked(tmp_path, *ops).nodes]


def conv(dilation: tuple[int, int] = (1, 1), filters: T | None = None, bias: T | None = None, **more: Any) -> Op:
    made = options("Conv2DOptions", dilationWFactor=dilation[0], dilationHFactor=dilation[1], strideW=1, strideH=1)
    filters = filters or weights(CHANNELS, 3, 3, CHANNELS)
    return Op(
        "CONV_2D", [T(), filters, bias or T((CHANNELS,), np.zeros(CHANNELS, np.int32), "int32")], options=made, **more
    )


def depthwise(dilation: tuple[int, int], kernel: tuple[int, int] = (3, 3)) -> Op:
    made = options("DepthwiseConv2DOptions", dilationWFactor=dilation[0], dilationHFactor=dilation[1])
    return Op("DEPTHWISE_CONV_2D", [T(), weights(1, *kernel, CHANNELS)], options=made)


def pool(fused: int, name: str = "MAX_POOL_2D") -> Op:
    return Op(name, [T()], options=options("Pool2DOptions", fusedActivationFunction=fused))


def dense(out: tuple[int, ...] = (1, 10), filters: T | None = None, **more: Any) -> Op:
    made = options("FullyConnectedOptions", **{key: more.pop(key) for key in list(more) if key == "weightsFormat"})
    return Op("FULLY_CONNECTED", [T((out[0], CHANNELS)), filters or weights(10, CHANNELS)], [T(out)], made, **more)


def concat(inputs: list[T | None], fused: int = 0) -> Op:
    made = options("ConcatenationOptions", axis=3, fusedActivationFunction=fused)
    return Op("CONCATENATION", inputs, [T((1, 8, 8, 2 * CHANNELS))], made)


def constant(value: int, zero: int = 0) -> T:
    return T(values=np.full((1, 8, 8, CHANNELS), value, np.int8), zero=zero)


def reduction(name: str, *axes: int, channels: int = CHANNELS) -> Op:
    return Op(name, [T((1, 8, 8, channels)), numbers(*axes)], [T((1, channels))])


def resize(name: str, old: int, new: int) -> Op:
    return Op(name, [T((1, old, old, 8)), numbers(new, new)], [T((1, new, new, 8))])


def strided(strides: tuple[int, ...], **masks: int) -> Op:
    begin, end = numbers(0, 0, 0, 0), numbers(1, 8, 8, 8)
    made = options("StridedSliceOptions", **masks)
    return Op("STRIDED_SLICE", [T(), begin, end, numbers(*strides)], [T((1, 8, 8, 8))], made)


def split(axis: int) -> Op:
    return Op("SPLIT", [numbers(axis), T((1, 8, 8, 16))], [T((1, 8, 8, 8)), T((1, 8, 8, 8))])


def lstm(state: str = "int16", dtype: str = "int8") -> Op:
    inner: list[T | None] = [weights(4, 4) for _ in range(8)]
    bias: list[T | None] = [T((4,), np.zeros(4, np.int32), "int32") for _ in range(4)]
    states: list[T | None] = [T((1, 4), dtype=dtype, variable=True), T((1, 4), dtype=state, variable=True)]
    nothing: list[T | None] = [None]
    inputs: list[T | None] = [T((1, 6, 4)), *inner, *nothing * 3, *bias, *nothing * 2, *states]
    return Op("UNIDIRECTIONAL_SEQUENCE_LSTM", inputs, [T((1, 6, 4))])


def prelu(*shape: int) -> Op:
    return Op("PRELU", [T(), weights(*shape)])
