"""The names of a TFLite model's inputs and outputs: those of its source, instead of those of a converter's graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from converters.tflite.reader import OUTSIDE_FROM
from converters.tflite.writer import serialize

SIGNATURE = "serving_default"


def with_names(content: bytes, inputs: Sequence[str], outputs: Sequence[str]) -> bytes:
    """Return the model with these names for its inputs and outputs in order, and a signature that lists them.

    A signature that TensorFlow's converter wrote already maps names to tensors; without one, the order counts. A
    tensor that is an input and an output keeps the input's name. A model with data behind its FlatBuffer (over 2 GB)
    is returned unchanged.
    """
    from ai_edge_litert import schema_py_generated as schema

    network = schema.ModelT.InitFromPackedBuf(content, 0)
    if any(buffer.offset > OUTSIDE_FROM for buffer in network.buffers):
        return content
    graph = network.subgraphs[0]
    if network.signatureDefs:
        placed_inputs = _indices_by_name(network.signatureDefs[0].inputs)
        placed_outputs = _indices_by_name(network.signatureDefs[0].outputs)
    else:
        placed_inputs = dict(zip(inputs, graph.inputs, strict=True))
        placed_outputs = dict(zip(outputs, graph.outputs, strict=True))
        network.signatureDefs = [signature_of(SIGNATURE, placed_inputs, placed_outputs)]
    names = {place: name for name, place in (*placed_outputs.items(), *placed_inputs.items())}
    taken = set(names.values())
    for place, tensor in enumerate(graph.tensors):
        if place in names:
            tensor.name = names[place].encode()
        elif tensor.name is not None and tensor.name.decode() in taken:
            tensor.name += b":inner"
    return serialize(network)


def output_names(content: bytes) -> list[str]:
    """Return the names of the output tensors of a model, in order."""
    from ai_edge_litert import schema_py_generated as schema

    graph = schema.ModelT.InitFromPackedBuf(content, 0).subgraphs[0]
    return [graph.tensors[place].name.decode() for place in graph.outputs]


def _indices_by_name(tensors: Sequence[Any]) -> Mapping[str, int]:
    return {one.name.decode(): one.tensorIndex for one in tensors}


def signature_of(key: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Any:
    """Return a `SignatureDefT` of the first subgraph that calls its tensors, by index, by these names."""
    from ai_edge_litert import schema_py_generated as schema

    signature = schema.SignatureDefT()
    signature.signatureKey = key.encode()
    signature.subgraphIndex = 0
    signature.inputs, signature.outputs = _maps(inputs), _maps(outputs)
    return signature


def _maps(places: Mapping[str, int]) -> list[Any]:
    from ai_edge_litert import schema_py_generated as schema

    maps = []
    for name, place in places.items():
        one = schema.TensorMapT()
        one.name, one.tensorIndex = name.encode(), int(place)
        maps.append(one)
    return maps
