"""Inspect ONNX files. Field numbers are those of onnx/onnx.proto (Apache-2.0)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

from converters.onnx.graph import dtype_name
from converters.wire.buffer import ByteSource
from converters.wire.protobuf import Message
from edge.inspection.report import Inspection, count_choices, precision_of, size_of
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import Producer
from runtimes.model_files.onnx import check_external_data, external_files, is_axis_name

_INTEGER_OPS = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
_PASSED_THROUGH = ("DequantizeLinear", "QuantizeLinear", "Reshape", "Squeeze", "Flatten", "Cast", "Identity")
_DEEPEST = 32  # levels of nested graphs, such as loops in branches in loops


def read(path: Path) -> Inspection:
    """Read an `.onnx` file. Raises InputError if it is broken or refers to weights outside its folder."""
    model = Message(ByteSource.open(path))
    graph = model.message(7)
    if graph is None or not model.has(1):
        raise InputError(f"{path} is not an ONNX model", "check how the file was made or copied")
    nodes = list(_nodes(graph, _DEEPEST))
    constants = [tensor for node in nodes for tensor in _constants(node)] + graph.messages(5)
    parameter_bytes = _parameter_bytes(constants)
    check_external_data(path)
    external = [path.parent / place for place in sorted(external_files(path))]
    initial = {tensor.text(8) for tensor in graph.messages(5)}
    return Inspection(
        format="onnx",
        inputs=tuple(_spec(info) for info in graph.messages(11) if info.text(1) not in initial),
        outputs=tuple(_spec(info) for info in graph.messages(12)),
        ops=Counter(_op(node) for node in nodes),
        precision=precision_of(parameter_bytes, _has_quantized_activations(nodes, initial)),
        parameter_bytes=parameter_bytes,
        size_bytes=path.stat().st_size + sum(file.stat().st_size for file in external if file.is_file()),
        producers=_producers(graph),
        metadata=_facts(model, external),
        notes=tuple(f"its weights file {file.name} is missing" for file in external if not file.is_file()),
    )


def _facts(model: Message, external: list[Path]) -> JsonObject:
    facts: JsonObject = {
        "ir_version": model.number(1),
        "opset": {entry.text(1) or "ai.onnx": entry.number(2) for entry in model.messages(8)},
        "producer": f"{model.text(2)} {model.text(3)}".strip(),
        "domain": model.text(4),
        "description": model.text(6),
        "properties": {entry.text(1): entry.text(2) for entry in model.messages(14)},
        "external_data": [file.name for file in external],
    }
    return {key: value for key, value in facts.items() if value}


def _nodes(graph: Message, depth: int) -> Iterator[Message]:
    """Yield all nodes, including those of branches and loop bodies."""
    for node in graph.messages(1):
        yield node
        for attribute in node.messages(5):
            inner = attribute.messages(11) + attribute.messages(6)
            if inner and depth == 0:
                raise graph.unsupported(f"nests graphs more than {_DEEPEST} deep")
            for one in inner:
                yield from _nodes(one, depth - 1)


def _constants(node: Message) -> Iterator[Message]:
    """Yield the tensors in a node's attributes."""
    for attribute in node.messages(5):
        yield from attribute.messages(5)


def _op(node: Message) -> str:
    domain, name = node.text(7), node.text(4)
    return name if domain in ("", "ai.onnx") else f"{domain}.{name}"


def _spec(info: Message) -> TensorSpec:
    kind = info.message(2)
    tensor = kind.message(1) if kind else None
    if tensor is None:
        return TensorSpec(info.text(1), "not a tensor", ())
    shape = tensor.message(2)
    sizes = tuple(_dimension(one, index) for index, one in enumerate(shape.messages(1))) if shape else ("any",)
    return TensorSpec(info.text(1), dtype_name(tensor.number(1)), sizes)


def _dimension(dimension: Message, index: int) -> int | str:
    size = dimension.number(1, -1)
    name = dimension.text(2)
    return size if size >= 0 else name if is_axis_name(name) else f"d{index}"


def _parameter_bytes(constants: list[Message]) -> Counter[str]:
    sizes: Counter[str] = Counter()
    for tensor in constants:
        dtype = dtype_name(tensor.number(2))
        sizes[dtype] += size_of(dtype, tuple(tensor.numbers(1)))
    return sizes


def _has_quantized_activations(nodes: list[Message], constants: set[str]) -> bool:
    return any(
        node.text(4) in _INTEGER_OPS
        or (node.text(4) == "QuantizeLinear" and next(iter(node.texts(1)), "") not in constants)
        for node in nodes
    )


def _producers(graph: Message) -> tuple[Producer | None, ...]:
    """Return the operator that computes each output, skipping operators that only reformat it."""
    nodes = graph.messages(1)
    makers = {name: node for node in nodes for name in node.texts(2)}
    shapes = {info.text(1): _spec(info).shape for field in (11, 12, 13) for info in graph.messages(field)}
    return tuple(_producer(makers, shapes, output.text(1)) for output in graph.messages(12))


def _producer(makers: Mapping[str, Message], shapes: Mapping[str, tuple[int | str, ...]], name: str) -> Producer | None:
    for _ in makers:
        node = makers.get(name)
        if node is None or node.text(4) not in _PASSED_THROUGH or not node.texts(1):
            break
        name = node.texts(1)[0]
    node = makers.get(name)
    if node is None:
        return None
    is_argmax = node.text(4) == "ArgMax" and node.texts(1)
    classes = count_choices(shapes.get(node.texts(1)[0], ()), shapes.get(name, ())) if is_argmax else None
    return Producer(node.text(4), list(node.texts(2)).index(name), classes)
