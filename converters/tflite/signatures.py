"""The signatures of a TFLite file: extract one of several as a separate model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters.tflite.names import SIGNATURE, with_names
from converters.tflite.reader import OUTSIDE_FROM
from converters.tflite.writer import read_network, serialize
from runtimes.errors import InputError


def write_signature(model: Path, name: str, out: Path) -> Path:
    """Write the signature `name` of the model as the main graph, and the only signature, of the file `out`.

    The graphs that it calls stay. Inputs and outputs have the signature's names, in its order. Raises InputError for a
    file with data behind its FlatBuffer.
    """
    network = read_network(model)
    if any(buffer.offset > OUTSIDE_FROM for buffer in network.buffers):
        what = f"{model} stores its weights behind the FlatBuffer, and edge cannot extract a signature from such a file"
        raise InputError(what, "export the signature as a separate model from its source")
    signature = next(one for one in network.signatureDefs if one.signatureKey.decode() == name)
    keep_graph(network, signature.subgraphIndex)
    signature.subgraphIndex, signature.signatureKey = 0, SIGNATURE.encode()
    network.signatureDefs = [signature]
    graph = network.subgraphs[0]
    graph.inputs = [one.tensorIndex for one in signature.inputs]
    graph.outputs = [one.tensorIndex for one in signature.outputs]
    names = [[one.name.decode() for one in tensors] for tensors in (signature.inputs, signature.outputs)]
    out.write_bytes(with_names(serialize(network), *names))
    return out


def keep_graph(network: Any, first: int) -> None:
    """Leave a `ModelT` the graph `first`, as its main graph, and those that it calls."""
    kept = _reachable_graphs(network, first)
    places = {old: new for new, old in enumerate(kept)}
    network.subgraphs = [network.subgraphs[old] for old in kept]
    for options, field in _references(network.subgraphs):
        setattr(options, field, places[vars(options)[field]])


def _reachable_graphs(network: Any, first: int) -> list[int]:
    """Return the graph `first` and those that it calls, directly or not, in the order in which they are found."""
    found = [first]
    for place in found:  # grows during iteration
        for options, field in _references([network.subgraphs[place]]):
            called = vars(options)[field]
            if called not in found:
                found.append(called)
    return found


def _references(graphs: Any) -> Iterator[tuple[Any, str]]:
    """Yield every field of operators' options that is the index of a graph (-1: none)."""
    for options in (
        options
        for graph in graphs
        for one in graph.operators
        for options in (one.builtinOptions, one.builtinOptions2)
        if options is not None
    ):
        for field, value in vars(options).items():
            is_index = field == "subgraph" or field.lower().endswith("subgraphindex")
            if is_index and isinstance(value, int) and value >= 0:
                yield options, field
