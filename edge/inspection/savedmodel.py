"""Inspect TensorFlow SavedModels: the serving signature, and the nodes that compute it.

A SavedModel also contains nodes that save, restore and train the model. Field numbers are those of tensorflow/core's
.proto files (Apache-2.0).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from converters.wire.buffer import ByteSource
from converters.wire.protobuf import Message
from edge.inspection.report import Inspection, precision_of, size_of
from runtimes.artifact.json_fields import JsonObject
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError

# types.proto, enum DataType, from 0; a number over 100 is a reference to the type 100 below it.
_NAMES = """
    invalid float32 float64 int32 uint8 int16 int8 string complex64 int64 bool qint8 quint8 qint32 bfloat16 qint16
    quint16 uint16 complex128 float16 resource variant uint32 uint64
"""
_DTYPES = tuple(_NAMES.split())
_SIGNATURE = "serving_default"
# Bookkeeping nodes, which compute nothing.
_SILENT = ["NoOp", "Placeholder", "Const", "Identity", "VarHandleOp", "ReadVariableOp", "DisableCopyOnRead"]
_SILENT += ["PartitionedCall", "StatefulPartitionedCall"]


def read(path: Path) -> Inspection:
    """Read a SavedModel folder. Raises InputError if its graph is broken."""
    saved = Message(ByteSource.open(path / "saved_model.pb"))
    graphs = saved.messages(2)
    if not graphs:
        raise InputError(f"{path}: saved_model.pb contains no graph", "export the model again with TensorFlow 2")
    signature = _signature(graphs[0])
    nodes = serving_nodes(graphs[0], signature) if signature else []
    parameter_bytes = _parameter_bytes(nodes)
    return Inspection(
        format="savedmodel",
        inputs=_specs(signature, 1),
        outputs=_specs(signature, 2),
        ops=Counter(op for node in nodes if (op := node.text(2)) not in _SILENT),
        precision=precision_of(parameter_bytes, quantized_activations=False),
        parameter_bytes=parameter_bytes,
        size_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file() and not file.is_symlink()),
        metadata=_facts(graphs[0]),
        notes=() if signature else (f"it has no signature '{_SIGNATURE}', which engines need to run it",),
    )


def _facts(graph: Message) -> JsonObject:
    about = graph.message(1)
    facts: JsonObject = {"signatures": sorted(entry.text(1) for entry in graph.messages(5))}
    if about is not None:
        facts |= {"tensorflow": about.text(5), "tags": about.texts(4)}
    return {key: value for key, value in facts.items() if value}


def _signature(graph: Message) -> Message | None:
    for entry in graph.messages(5):
        if entry.text(1) == _SIGNATURE:
            return entry.message(2)
    return None


def _specs(signature: Message | None, field: int) -> tuple[TensorSpec, ...]:
    entries = signature.messages(field) if signature else []
    return tuple(_spec(entry.text(1), info) for entry in entries if (info := entry.message(2)) is not None)


def _spec(name: str, info: Message) -> TensorSpec:
    return TensorSpec(name, _dtype(info.number(2)), _shape(info.message(3)))


def _shape(shape: Message | None) -> tuple[int | str, ...]:
    if shape is None or shape.number(3):
        return ("any",)
    sizes = [one.number(1) for one in shape.messages(2)]
    return tuple(size if size >= 0 else f"d{index}" for index, size in enumerate(sizes))


def _dtype(number: int) -> str:
    number -= 100 if number > 100 else 0
    return _DTYPES[number] if 0 <= number < len(_DTYPES) else f"unknown_{number}"


def _parameter_bytes(nodes: list[Message]) -> Counter[str]:
    """Sum the bytes of variables, by their declared shape, and of constants."""
    sizes: Counter[str] = Counter()
    for node in nodes:
        if node.text(2) == "VarHandleOp":
            values = {entry.text(1): entry.message(2) for entry in node.messages(5)}
            dtype, shape = values.get("dtype"), values.get("shape")
            if dtype is not None and shape is not None:
                _add(sizes, dtype.number(6), shape.message(7))
        elif node.text(2) == "Const":
            for entry in node.messages(5):
                value = entry.message(2)
                tensor = value.message(8) if value else None
                if tensor is not None:
                    _add(sizes, tensor.number(1), tensor.message(2))
    return sizes


def _add(sizes: Counter[str], number: int, shape: Message | None) -> None:
    known = tuple(size for size in _shape(shape) if isinstance(size, int)) if shape else ()
    if size := size_of(_dtype(number), known):
        sizes[_dtype(number)] += size


def serving_nodes(graph: Message, signature: Message) -> list[Message]:
    """Return the nodes that the signature's outputs depend on, in the graph and in the functions that it calls."""
    main = graph.message(2)
    if main is None:
        return []
    library = main.message(2)
    functions = {_function_name(one): one for one in (library.messages(1) if library else [])}
    found = _upstream(main.messages(1), _output_nodes(signature))
    called: set[str] = set()
    for node in found:  # grows during iteration, because the nodes of a called function may call others
        for name in _calls(node):
            if name in functions and name not in called:
                called.add(name)
                found.extend(functions[name].messages(3))
    return found


def _output_nodes(signature: Message) -> list[str]:
    infos = [entry.message(2) for entry in signature.messages(2)]
    return [_node_of(info.text(1)) for info in infos if info is not None]


def _upstream(nodes: list[Message], names: list[str]) -> list[Message]:
    by_name = {node.text(1): node for node in nodes}
    waiting, found = list(names), dict[str, Message]()
    while waiting:
        name = waiting.pop()
        if name in by_name and name not in found:
            found[name] = by_name[name]
            waiting.extend(_node_of(tensor) for tensor in by_name[name].texts(3))
    return list(found.values())


def _node_of(tensor: str) -> str:
    """Return the node of a tensor: "name:0" and "^name" both refer to the node "name"."""
    return tensor.lstrip("^").split(":")[0]


def _function_name(function: Message) -> str:
    signature = function.message(1)
    return signature.text(1) if signature else ""


def _calls(node: Message) -> list[str]:
    """Return the functions that a node's attributes refer to."""
    values = [entry.message(2) for entry in node.messages(5)]
    named = [value.message(10) for value in values if value is not None]
    return [function.text(1) for function in named if function is not None]
