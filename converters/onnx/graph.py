"""Read an ONNX file as plain values: nodes, their attributes, shapes and constants. No library is needed.

Field numbers are those of onnx/onnx.proto (Apache-2.0). The file is untrusted; weights are not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Literal

from converters.wire.buffer import ByteSource
from converters.wire.protobuf import Message
from runtimes.errors import InputError
from runtimes.model_files.onnx import is_axis_name

_MAX_DEPTH = 32  # graphs within graphs: loops in branches in loops
_MAX_DIMENSIONS = 32
_ONNX_DOMAINS = ("", "ai.onnx")
# TensorProto.DataType, from 0.
_ELEMENT_TYPES = """
    undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 complex64
    complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz uint4 int4 float4_e2m1 float8_e8m0
    uint2 int2 float6_e2m3 float6_e3m2
"""
DTYPES = tuple(_ELEMENT_TYPES.split())
_INTEGER, _STRING, _INTEGERS = 3, 4, 8  # fields of AttributeProto

_BYTES = {"float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8, "float16": 2, "bfloat16": 2}

# Of the types that sizes have: the letter in `memoryview`, the bytes, and the field of TensorProto.
_WHOLE: Mapping[str, tuple[Literal["q", "i"], int, int]] = {"int64": ("q", 8, 7), "int32": ("i", 4, 5)}

Shape = tuple[int | str, ...]
Attribute = int | str | tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A constant of the model.

    Attributes:
        dtype: The element type, such as "float32".
        shape: The dimensions.
        message: Its TensorProto.
    """

    dtype: str
    shape: tuple[int, ...]
    message: Message

    @property
    def is_zero(self) -> bool:
        """Whether all values stored in the file itself are zero. External data is not read."""
        raw = self.message.raw(9)
        raw.spend(1 + len(raw.view) // 64 + self.message.size(5))
        return not any(bytes(raw.view)) and not any(self.message.numbers(5))

    def integers(self) -> tuple[int, ...]:
        """Return the values of an int64 or int32 constant that can be a shape; empty for any other constant."""
        if self.dtype not in _WHOLE:
            return ()
        raw, (code, width, field) = self.message.raw(9), _WHOLE[self.dtype]
        if max(len(raw.view) // width, self.message.size(field) // 10) > _MAX_DIMENSIONS:
            return ()
        values = memoryview(bytes(raw.view[: len(raw.view) // width * width])).cast(code)
        return tuple(values) or tuple(self.message.numbers(field))

    def reals(self, most: int) -> tuple[float, ...]:
        """Return the values of a float32 constant of at most `most` values in the file itself; empty for any other."""
        stored = self.message.raw(9) if self.message.size(9) else self.message.raw(4)  # one field of packed numbers
        if self.dtype != "float32" or len(stored.view) > 4 * most or len(stored.view) != 4 * prod(self.shape):
            return ()
        return tuple(memoryview(bytes(stored.view)).cast("f"))


@dataclass(frozen=True, kw_only=True)
class OnnxNode:
    """One node of the main graph, a branch or a loop body.

    Attributes:
        op: The operator, prefixed with its domain unless that is ONNX's own.
        name: The node's name, or that of its first output if it has none.
        inputs: The names of its input tensors; empty for an omitted optional input.
        outputs: The names of its output tensors.
        attributes: Integers, strings and lists of integers, by name.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute, or `default`."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> tuple[int, ...]:
        """Return an attribute that is a list of integers; empty if it is missing."""
        value = self.attributes.get(name, ())
        return value if isinstance(value, tuple) else ()

    def word(self, name: str, default: str) -> str:
        """Return a string attribute, or `default`."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default


@dataclass(kw_only=True)
class OnnxGraph:
    """A model.

    Attributes:
        opset: The version of ONNX's own operator set.
        nodes: All nodes, including those of subgraphs.
        constants: Initializers and outputs of Constant nodes, by name.
        shapes: The shapes that the file declares, by tensor name.
        dtypes: The element types that the file declares, by tensor name.
        inputs: The names of the inputs, without the constants.
        outputs: The names of the outputs.
    """

    opset: int
    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)

    def input(self, node: OnnxNode, place: int) -> str:
        """Return the name of a node's input at index `place`; empty if it is omitted."""
        return node.inputs[place] if place < len(node.inputs) else ""

    @cached_property
    def folded(self) -> frozenset[str]:
        """The tensors that are computed from constants only, such as weights that are stored quantized."""
        names = set(self.constants)
        for node in self.nodes:
            if node.inputs and all(name in names for name in node.inputs if name):
                names.update(node.outputs)
        return frozenset(names)

    def is_constant(self, name: str) -> bool:
        """Return whether a tensor is known before the first inference."""
        return name in self.folded

    @property
    def parameter_bytes(self) -> int:
        """The size of all constants."""
        return sum(prod(one.shape) * _BYTES.get(one.dtype, 1) for one in self.constants.values())


def read_onnx(path: Path) -> OnnxGraph:
    """Read an `.onnx` file. Raises InputError if it is broken."""
    source = ByteSource.open(path)
    model = Message(source)
    main = model.message(7)
    if main is None or not model.has(1):
        raise InputError(f"{path} is not an ONNX model: it has no graph or no IR version", "pass an .onnx file")
    graph = OnnxGraph(
        opset=max((one.number(2) for one in model.messages(8) if one.text(1) in _ONNX_DOMAINS), default=1)
    )
    _add_graph(main, graph, _MAX_DEPTH)
    graph.inputs = [name for info in main.messages(11) if (name := info.text(1)) not in graph.constants]
    graph.outputs = [info.text(1) for info in main.messages(12)]
    return graph


def _add_graph(message: Message, graph: OnnxGraph, depth: int) -> None:
    """Add a graph, then the subgraphs of its nodes."""
    if depth == 0:
        raise message.unsupported(f"nests graphs more than {_MAX_DEPTH} deep")
    for tensor in message.messages(5):
        graph.constants[tensor.text(8)] = _constant(tensor)
    for info in (*message.messages(11), *message.messages(12), *message.messages(13)):
        _add_value_info(info, graph)
    for node in message.messages(1):
        graph.nodes.append(_node(node))
        for attribute in node.messages(5):
            for value in attribute.messages(5):
                if node.text(4) == "Constant" and node.texts(2):
                    graph.constants[node.texts(2)[0]] = _constant(value)
            for inner in (*attribute.messages(6), *attribute.messages(11)):
                _add_graph(inner, graph, depth - 1)


def _constant(tensor: Message) -> Constant:
    return Constant(
        dtype=dtype_name(tensor.number(2)), shape=tuple(tensor.numbers(1)[:_MAX_DIMENSIONS]), message=tensor
    )


def _add_value_info(info: Message, graph: OnnxGraph) -> None:
    kind = info.message(2)
    tensor = kind.message(1) if kind else None
    if tensor is None:
        return
    name, shape = info.text(1), tensor.message(2)
    graph.dtypes[name] = dtype_name(tensor.number(1))
    if shape is not None:
        graph.shapes[name] = tuple(_dimensions(shape))


def _dimensions(shape: Message) -> Iterator[int | str]:
    for index, dimension in enumerate(shape.messages(1)[:_MAX_DIMENSIONS]):
        size = dimension.number(1, -1)
        name = dimension.text(2)
        yield size if size >= 0 else name if is_axis_name(name) else f"d{index}"


def _node(message: Message) -> OnnxNode:
    domain, outputs = message.text(7), tuple(message.texts(2))
    op = message.text(4) if domain in _ONNX_DOMAINS else f"{domain}.{message.text(4)}"
    name = message.text(3) or next((one for one in outputs if one), "")
    attributes = {one.text(1): value for one in message.messages(5) if (value := _attribute(one)) is not None}
    return OnnxNode(op=op, name=name, inputs=tuple(message.texts(1)), outputs=outputs, attributes=attributes)


def _attribute(message: Message) -> Attribute | None:
    if message.has(_INTEGERS):
        return tuple(message.numbers(_INTEGERS))
    if message.has(_STRING):
        return message.text(_STRING)
    return message.number(_INTEGER) if message.has(_INTEGER) else None


def dtype_name(number: int) -> str:
    """Return the name of an element type by its number in TensorProto.DataType."""
    return DTYPES[number] if 0 <= number < len(DTYPES) else f"unknown_{number}"
