"""Prepare a float TFLite file for ai-edge-quantizer, which otherwise fails or silently changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from converters.tflite.interpreter import inspection_interpreter
from converters.tflite.names import SIGNATURE, signature_of
from converters.tflite.reader import OPERATORS, read_tflite
from converters.tflite.writer import read_network, serialize, write_inline
from runtimes.shapes import with_shapes

_DEQUANTIZE = OPERATORS.index("DEQUANTIZE")


def prepare(model: Path, folder: Path, shapes: Sequence[str] = ()) -> bytes:
    """Return the model with the same results, in the form that the quantizer reads.

    Operator codes of old files are in the field that it reads, weights in fp16 are float32, there is a signature, and
    inputs with free sizes have those of `shapes` (`runtimes.shapes`).
    """
    network = read_network(write_inline(model, folder / "inline.tflite"))
    if shapes:
        _fix_sizes(network, model, shapes)
    for code in network.operatorCodes:
        code.builtinCode = max(code.builtinCode, code.deprecatedBuiltinCode)
    for graph in network.subgraphs:
        _widen_weights(network, graph)
        _name_tensors(graph)
    if not network.signatureDefs:
        graph = network.subgraphs[0]
        places = [
            {graph.tensors[place].name.decode(): place for place in ends} for ends in (graph.inputs, graph.outputs)
        ]
        network.signatureDefs = [signature_of(SIGNATURE, *places)]
    return serialize(network)


def _fix_sizes(network: Any, model: Path, shapes: Sequence[str]) -> None:
    """Write the sizes of the inputs, and those of all other tensors as the interpreter derives them."""
    graph, known = network.subgraphs[0], read_tflite(model).graphs[0]
    specs = with_shapes([known.tensors[place].spec for place in known.inputs], shapes)
    for place, spec in zip(graph.inputs, specs, strict=True):
        graph.tensors[place].shape = np.array([one if isinstance(one, int) else 1 for one in spec.shape], np.int32)
    for tensor in graph.tensors:
        tensor.shapeSignature = None
    interpreter = inspection_interpreter(serialize(network))
    interpreter.allocate_tensors()
    for one in interpreter.get_tensor_details():
        if one["index"] < len(graph.tensors):  # temporary ones follow
            graph.tensors[one["index"]].shape = one["shape"]


def drop_unused(model: Path) -> bytes:
    """Return the model without the data that no operator reads any more, such as weights in their old precision."""
    network = read_network(model)
    used = {0}
    for graph in network.subgraphs:
        kept = {place for one in graph.operators for place in (*_places(one.inputs), *_places(one.outputs))}
        kept |= {*_places(graph.inputs), *_places(graph.outputs)}
        used |= {tensor.buffer for place, tensor in enumerate(graph.tensors) if place in kept}
    used |= {one.buffer for one in network.metadata or ()}
    for place, buffer in enumerate(network.buffers):
        if place not in used:
            buffer.data = None
    return serialize(network)


def _places(values: Any) -> list[int]:
    return [] if values is None else [int(value) for value in values]


def _widen_weights(network: Any, graph: Any) -> None:
    """Replace every DEQUANTIZE of constant fp16 weights by constant float32 weights."""
    from ai_edge_litert import schema_py_generated as schema

    kept = []
    for one in graph.operators:
        source = graph.tensors[one.inputs[0]] if _places(one.inputs) else None
        is_half = source is not None and source.type == schema.TensorType.FLOAT16
        data = network.buffers[source.buffer].data if source is not None and is_half else None
        if network.operatorCodes[one.opcodeIndex].builtinCode != _DEQUANTIZE or data is None:
            kept.append(one)
            continue
        values = np.frombuffer(bytes(bytearray(data)), np.float16).astype(np.float32)
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(values.tobytes(), np.uint8)
        buffer.offset = buffer.size = 0
        graph.tensors[one.outputs[0]].buffer = len(network.buffers)
        network.buffers.append(buffer)
    graph.operators = kept


def _name_tensors(graph: Any) -> None:
    """Make the names of the tensors unique, because ranges are found by name."""
    known: set[bytes] = set()
    for place, tensor in enumerate(graph.tensors):
        if not tensor.name or tensor.name in known:
            tensor.name = (tensor.name or b"tensor") + f":{place}".encode()
        known.add(tensor.name)
