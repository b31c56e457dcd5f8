"""Read a TFLite file into the objects of its schema, modify it, and write it back as a single FlatBuffer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.tflite.reader import OPERATORS, OUTSIDE_FROM, read_tflite
from runtimes.errors import InputError

_MAX_FLATBUFFER_BYTES = 2**31 - 1  # offsets inside a FlatBuffer have 32 bits, one of them the sign
_ALIGNMENT = 16  # of a buffer's data: the schema requires it (force_align), but the generated Python code ignores it
# The operator versions that int8 requires (TensorFlow's FindMinimumRuntimeVersionForOp, op_version.cc). A quantizer
# that modifies a float file leaves the versions of the float operators, and old runtimes rely on these numbers.
_INT8_VERSIONS = {
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), 3),
    "FULLY_CONNECTED": 4,
    **dict.fromkeys(("ADD", "SUB", "MUL", "MEAN", "SOFTMAX", "PAD", "LOGISTIC", "CONCATENATION", "TANH"), 2),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D", "RELU", "RELU6"), 2),
}


def read_network(model: Path) -> Any:
    """Read the file as a `ModelT` of the schema. Raises InputError if it is not a TFLite file."""
    from ai_edge_litert import schema_py_generated as schema

    content = model.read_bytes()
    if content[4:8] != b"TFL3":
        raise InputError(f"{model} is not a TFLite model", "check how the file was made or copied")
    return schema.ModelT.InitFromPackedBuf(content, 0)


def serialize(network: Any) -> bytes:
    """Return the bytes of a `ModelT`. The same network gives the same bytes."""
    import flatbuffers

    network.buffers = [_align(buffer) for buffer in network.buffers]
    builder = flatbuffers.Builder(2**20)
    builder.Finish(network.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def write_inline(model: Path, out: Path) -> Path:
    """Write the model to the file `out`, moving all data behind its FlatBuffer into it.

    The results of the model stay bit-identical. Versions of int8 operators are raised to those that int8 requires.
    Raises InputError for a file that is broken, or too large for one FlatBuffer.
    """
    source, content = read_tflite(model), model.read_bytes()  # the reader rejects offsets outside the file
    network = read_network(model)
    size = 0
    for buffer in network.buffers:
        if buffer.offset > OUTSIDE_FROM and buffer.size:
            buffer.data = _within(content, buffer.offset, buffer.size, model)
        buffer.offset = buffer.size = 0
        size += 0 if buffer.data is None else len(buffer.data)
    for operator in (one for graph in network.subgraphs for one in graph.operators):
        if operator.largeCustomOptionsSize:
            place = operator.largeCustomOptionsOffset, operator.largeCustomOptionsSize
            operator.customOptions = _within(content, *place, model)
            operator.largeCustomOptionsOffset = operator.largeCustomOptionsSize = 0
            size += len(operator.customOptions)
    if size > _MAX_FLATBUFFER_BYTES:
        what = f"{model} contains {size / 2**30:.1f} GiB of weights, more than fit in one FlatBuffer"
        raise InputError(what, "use a smaller model")
    _raise_versions(network, source.graphs)
    out.write_bytes(serialize(network))
    return out


def operator_name(network: Any, operator: Any) -> str:
    """Return the name of an `OperatorT` in the schema: "CONV_2D"."""
    code = network.operatorCodes[operator.opcodeIndex]
    return OPERATORS[int(max(code.builtinCode, code.deprecatedBuiltinCode))]  # the old field ends at 127


def operator_code(network: Any, kind: int) -> int:
    """Return the index of an operator's code, which is added if the network has none."""
    from ai_edge_litert import schema_py_generated as schema

    for place, code in enumerate(network.operatorCodes):
        if code.builtinCode == kind:
            return place
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = kind
    network.operatorCodes.append(code)
    return len(network.operatorCodes) - 1


def _raise_versions(network: Any, graphs: Any) -> None:
    for graph, objects in zip(graphs, network.subgraphs, strict=True):
        for operator, packed_operator in zip(graph.operators, objects.operators, strict=True):
            first = operator.inputs[0] if operator.inputs else -1
            if first >= 0 and graph.tensors[first].spec.dtype == "int8" and not operator.is_custom:
                code = network.operatorCodes[packed_operator.opcodeIndex]
                code.version = max(code.version, _INT8_VERSIONS.get(operator.name, 1))


def _within(content: bytes, start: int, size: int, model: Path) -> Any:
    if start + size > len(content):
        raise InputError(
            f"{model} is truncated: it refers to data beyond its end", "compare its size and sha256 with the original's"
        )
    return np.frombuffer(content, np.uint8, size, start)


def _align(buffer: Any) -> Any:
    """Return the buffer as an object that packs its data at a multiple of 16 bytes in the file."""
    from ai_edge_litert import schema_py_generated as schema

    class Aligned(schema.BufferT):  # type: ignore[misc,unused-ignore] # generated code without types
        def Pack(self, builder: Any) -> Any:  # noqa: N802 - the name in the generated code
            data = None if self.data is None else _vector(builder, bytes(bytearray(self.data)))
            schema.BufferStart(builder)
            if data is not None:
                schema.BufferAddData(builder, data)
            return schema.BufferEnd(builder)

    return Aligned(buffer.data)


def _vector(builder: Any, data: bytes) -> Any:
    builder.StartVector(1, len(data), _ALIGNMENT)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return builder.EndVector()
