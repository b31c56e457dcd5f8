"""An ONNX file as plain values: nodes, their attributes, shapes and constants. No library is needed.

Field numbers are those of onnx/onnx.proto (Apache-2.0). The file is not trusted; weights are not loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from pathlib import Path

from converters.bounded import Source
from converters.protobuf import Message

_DEEPEST = 32  # graphs within graphs: loops in branches in loops
_MOST_DIMENSIONS = 32
_ONNX_DOMAINS = ("", "ai.onnx")
_ELEMENT_TYPES = """
    undefined float32 uint8 int8 uint16 int16 int32 int64 string bool float16 float64 uint32 uint64 complex64
    complex128 bfloat16 float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz uint4 int4
"""
_DTYPES = tuple(_ELEMENT_TYPES.split())
_INTEGER, _STRING, _INTEGERS = 3, 4, 8  # fields of AttributeProto

_BYTES = {"float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8, "float16": 2, "bfloat16": 2}

Shape = tuple[int | str, ...]
Attribute = int | str | tuple[int, ...]


@dataclass(frozen=True)
class Constant:
    """A constant of the model; `message` is its TensorProto."""

    dtype: str
    shape: tuple[int, ...]
    message: Message

    @property
    def is_zero(self) -> bool:
        """Whether all its values are zero, as far as they stand in the file itself."""
        raw = self.message.raw(9)
        raw.spend(1 + len(raw.view) // 64 + self.message.size(5))
        return not any(bytes(raw.view)) and not any(self.message.numbers(5))

    def integers(self) -> tuple[int, ...]:
        """The values of a constant of type int64 that is a shape; empty for any other."""
        raw = self.message.raw(9)
        if self.dtype != "int64" or max(len(raw.view) // 8, self.message.size(7) // 10) > _MOST_DIMENSIONS:
            return ()
        values = memoryview(bytes(raw.view[: len(raw.view) // 8 * 8])).cast("q")
        return tuple(values) or tuple(self.message.numbers(7))


@dataclass(frozen=True)
class OnnxNode:
    """One node, also of a branch or loop body. `op` carries its domain where that is not ONNX's own."""

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]

    def integer(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def integers(self, name: str) -> tuple[int, ...]:
        """An attribute that is a list of whole numbers; empty where it is left out."""
        value = self.attributes.get(name, ())
        return value if isinstance(value, tuple) else ()

    def word(self, name: str, default: str) -> str:
        """An attribute that is a word."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default


@dataclass
class OnnxGraph:
    """A model: `shapes` and `dtypes` of the tensors of which the file tells; `inputs` without the constants."""

    opset: int
    nodes: list[OnnxNode] = field(default_factory=list)
    constants: dict[str, Constant] = field(default_factory=dict)
    shapes: dict[str, Shape] = field(default_factory=dict)
    dtypes: dict[str, str] = field(default_factory=dict)
    inputs: list[str] = field(default_factory=list)

    def input(self, node: OnnxNode, place: int) -> str:
        """The name of a node's input; empty where it is left out."""
        return node.inputs[place] if place < len(node.inputs) else ""

    @cached_property
    def folded(self) -> frozenset[str]:
        """The tensors that follow from constants alone, such as weights that are stored quantised."""
        names = set(self.constants)
        for node in self.nodes:
            if node.inputs and all(name in names for name in node.inputs if name):
                names.update(node.outputs)
        return frozenset(names)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known before the first inference."""
        return name in self.folded

    @property
    def parameter_bytes(self) -> int:
        """The size of all constants."""
        return sum(prod(one.shape) * _BYTES.get(one.dtype, 1) for one in self.constants.values())


def read_onnx(path: Path) -> OnnxGraph:
    """Read an `.onnx` file; InputError when it is broken."""
    source = Source.open(path)
    model = Message(source)
    main = model.message(7)
    if main is None or not model.has(1):
        raise source.broken("it is not an ONNX model")
    graph = OnnxGraph(max((one.number(2) for one in model.messages(8) if one.text(1) in _ONNX_DOMAINS), default=1))
    _take_in(main, graph, _DEEPEST)
    graph.inputs = [name for info in main.messages(11) if (name := info.text(1)) not in graph.constants]
    return graph


def _take_in(message: Message, graph: OnnxGraph, depth: int) -> None:
    """Add a graph, and then those inside its nodes."""
    if depth == 0:
        raise message.broken(f"it nests graphs more than {_DEEPEST} deep")
    for tensor in message.messages(5):
        graph.constants[tensor.text(8)] = _constant(tensor)
    for info in (*message.messages(11), *message.messages(12), *message.messages(13)):
        _take_in_info(info, graph)
    for node in message.messages(1):
        graph.nodes.append(_node(node))
        for attribute in node.messages(5):
            for value in attribute.messages(5):
                if node.text(4) == "Constant" and node.texts(2):
                    graph.constants[node.texts(2)[0]] = _constant(value)
            for inner in (*attribute.messages(6), *attribute.messages(11)):
                _take_in(inner, graph, depth - 1)


def _constant(tensor: Message) -> Constant:
    return Constant(_dtype(tensor.number(2)), tuple(tensor.numbers(1)[:_MOST_DIMENSIONS]), tensor)


def _take_in_info(info: Message, graph: OnnxGraph) -> None:
    kind = info.message(2)
    tensor = kind.message(1) if kind else None
    if tensor is None:
        return
    name, shape = info.text(1), tensor.message(2)
    graph.dtypes[name] = _dtype(tensor.number(1))
    if shape is not None:
        graph.shapes[name] = tuple(_dimensions(shape))


def _dimensions(shape: Message) -> Iterator[int | str]:
    for index, dimension in enumerate(shape.messages(1)[:_MOST_DIMENSIONS]):
        size = dimension.number(1, -1)
        yield size if size >= 0 else dimension.text(2) or f"d{index}"


def _node(message: Message) -> OnnxNode:
    domain, outputs = message.text(7), tuple(message.texts(2))
    op = message.text(4) if domain in _ONNX_DOMAINS else f"{domain}.{message.text(4)}"
    name = message.text(3) or next((one for one in outputs if one), "")
    attributes = {one.text(1): value for one in message.messages(5) if (value := _attribute(one)) is not None}
    return OnnxNode(op, name, tuple(message.texts(1)), outputs, attributes)


def _attribute(message: Message) -> Attribute | None:
    if message.has(_INTEGERS):
        return tuple(message.numbers(_INTEGERS))
    if message.has(_STRING):
        return message.text(_STRING)
    return message.number(_INTEGER) if message.has(_INTEGER) else None


def _dtype(number: int) -> str:
    return _DTYPES[number] if 0 <= number < len(_DTYPES) else f"type {number}"
