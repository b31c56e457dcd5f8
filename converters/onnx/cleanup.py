"""Clean up the graphs that tf2onnx writes: fold factors into convolutions, and make the bytes reproducible.

tf2onnx keeps nodes in sets that Python orders by memory address, so the order of nodes, their numbers and the choice
among equal constants differ from run to run; only the graph itself is the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from runtimes.arrays import Array

if TYPE_CHECKING:
    from onnx import TensorProto

# The passes of `onnx_ir` are not used here. Its TopologicalSortPass keeps the input order of independent nodes
# (measured with 1.1.0: two orders of the same two branches stay two orders), NameFixPass keeps the counters, and none
# folds factors into a convolution; so two runs would give different bytes.
_COUNTER = re.compile(r"__\d+")


def tidy(model: Any) -> None:
    """Fold, sort and rename everything in an `onnx.ModelProto`, in place. Inputs and outputs keep their names."""
    model.graph.ClearField("doc_string")  # a function name that contains a counter of this process
    _fold_channel_factors(model.graph)
    _order(model.graph)
    _Names(model.graph).apply()


def copy_unchanged_states(model: Any) -> bool:
    """Copy the states that a loop of an `onnx.ModelProto` passes on unchanged, in place; returns whether there are any.

    tf2onnx writes the weights of recurrent layers that way, and OpenVINO 2026.4 miscounts the states of such a loop.
    """
    from onnx import helper

    changed = False
    for graph in graphs_of(model.graph):
        inputs = {value.name for value in graph.input}
        for output in graph.output if graph is not model.graph else ():
            if output.name in inputs:
                copy = f"{output.name}/unchanged"
                graph.node.append(helper.make_node("Identity", [output.name], [copy]))
                output.name, changed = copy, True
    return changed


def _fold_channel_factors(graph: Any) -> None:
    """Fold a Mul or Add with one constant per channel into the preceding Conv.

    Such pairs come from BatchNorm after a depthwise convolution.
    """
    constants = {tensor.name: tensor for tensor in graph.initializer}
    uses = Counter(name for node in graph.node for name in node.input)
    uses.update(output.name for output in graph.output)
    consumers = {name: node for node in graph.node for name in node.input}
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        while uses[node.output[0]] == 1 and (after := consumers.get(node.output[0])) is not None:
            if not _fold(graph, node, after, constants):
                break
            graph.node.remove(after)
    _drop_unused(graph)


def _fold(graph: Any, conv: Any, after: Any, constants: dict[str, TensorProto]) -> bool:
    """Fold `after` into `conv` if possible, so that `conv` writes the output of `after`. Returns whether it did."""
    from onnx import numpy_helper

    others = [name for name in after.input if name != conv.output[0]]
    if after.op_type not in ("Mul", "Add") or len(others) != 1 or others[0] not in constants:
        return False
    if any(name not in constants for name in conv.input[1:]):
        return False
    arrays = [numpy_helper.to_array(constants[name]) for name in conv.input[1:]]
    weight, bias = arrays if len(arrays) == 2 else (arrays[0], np.zeros(len(arrays[0]), arrays[0].dtype))
    value = _per_channel(numpy_helper.to_array(constants[others[0]]), weight)
    if value is None:
        return False
    if after.op_type == "Mul":
        weight, bias = weight * value.reshape(-1, *[1] * (weight.ndim - 1)), bias * value
    else:
        bias = bias + value
    conv.output[0] = after.output[0]
    conv.input[1:] = [
        _constant(graph, constants, f"{after.name}/{part}", array)
        for part, array in (("weight", weight), ("bias", bias))
    ]
    return True


def _per_channel(value: Array, weight: Array) -> Array | None:
    """Reshape a constant [1, C, 1, …] or [C, 1, …] to [C]. Returns None for any other shape."""
    spatial = weight.ndim - 2
    shape = value.shape[1:] if value.ndim == weight.ndim and value.shape[0] == 1 else value.shape
    return value.reshape(-1) if shape == (len(weight), *[1] * spatial) else None


def _constant(graph: Any, constants: dict[str, TensorProto], name: str, array: Array) -> str:
    from onnx import numpy_helper

    constants[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
    graph.initializer.append(constants[name])
    return name


def _drop_unused(graph: Any) -> None:
    used = {name for node in all_nodes(graph) for name in node.input} | {output.name for output in graph.output}
    kept = {tensor.name: tensor for tensor in graph.initializer if tensor.name in used}
    replace_all(graph.initializer, list(kept.values()))


def _order(graph: Any) -> None:
    """Sort nodes in the order of a traversal backwards from the outputs, and constants by their first use."""
    producers = {name: node for node in graph.node for name in node.output}
    ordered: list[Any] = []
    done: set[str] = set()
    waiting = [name for output in reversed(graph.output) for name in [output.name]]
    while waiting:
        node = producers.get(waiting[-1])
        missing = [] if node is None else [name for name in _inputs(node) if name in producers and name not in done]
        if missing and waiting[-1] not in done:
            waiting += reversed(missing)
            continue
        waiting.pop()
        if node is not None and node.output[0] not in done:
            ordered.append(node)
            done.update(node.output)
    replace_all(graph.node, ordered)
    first_use = {name: index for index, name in reversed(list(enumerate(_uses(graph))))}
    replace_all(graph.initializer, sorted(graph.initializer, key=lambda tensor: first_use[tensor.name]))
    for node in graph.node:
        for inner in _graphs(node):
            _order(inner)


def _inputs(node: Any) -> list[str]:
    """Return the tensors that a node needs, including outer tensors that its subgraphs refer to."""
    inner = [name for graph in _graphs(node) for name in _uses(graph)]
    return [*node.input, *inner]


def _uses(graph: Any) -> list[str]:
    return [name for node in all_nodes(graph) for name in node.input] + [output.name for output in graph.output]


def all_nodes(graph: Any) -> Iterator[Any]:
    """Iterate over every node of a graph, including those of its subgraphs."""
    for node in graph.node:
        yield node
        yield from all_nodes_inside(node)


def all_nodes_inside(node: Any) -> Iterator[Any]:
    """Iterate over the nodes of a node's branches and bodies."""
    for graph in _graphs(node):
        yield from all_nodes(graph)


def graphs_of(graph: Any) -> Iterator[Any]:
    """Iterate over a graph and all branches and bodies of its nodes."""
    yield graph
    for node in graph.node:
        for inner in _graphs(node):
            yield from graphs_of(inner)


def _graphs(node: Any) -> list[Any]:
    return [
        graph
        for attribute in node.attribute
        for graph in (*[attribute.g][: attribute.HasField("g")], *attribute.graphs)
    ]


def replace_all(field: Any, values: Iterable[Any]) -> None:
    """Set a repeated field of a protobuf message to `values`, which may be messages of the field itself."""
    # Copies, because to delete a message from its field empties it.
    copies = [type(value).FromString(value.SerializeToString(deterministic=True)) for value in values]
    del field[:]
    field.extend(copies)


class _Names:
    """Assign names without counters, made unique by position in the graph.

    A constant is named after the node that uses it.
    """

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self._kept = {value.name for value in (*graph.input, *graph.output)}
        self._taken = Counter(self._kept)
        self._tensors = {name: name for name in (*self._kept, "")}

    def apply(self) -> None:
        """Rename nodes, constants and tensors, in subgraphs too."""
        self._name(self._graph)
        self._rename(self._graph, lambda name: self._tensors.get(name, name))

    def _name(self, graph: Any) -> None:
        constants = {tensor.name for tensor in graph.initializer}
        for value in graph.input:
            self._add(value.name, value.name)
        for node in graph.node:
            node.name = self._unique(_COUNTER.sub("", node.name) or node.op_type)
            for index, name in enumerate(node.input):
                if name in constants:
                    self._add(name, f"{node.name}/{index}")
            for inner in _graphs(node):
                self._name(inner)
            for index, name in enumerate(node.output):
                self._add(name, f"{node.name}:{index}")
        for tensor in graph.initializer:
            self._add(tensor.name, "constant")

    def _add(self, name: str, wanted: str) -> None:
        if name not in self._tensors:
            self._tensors[name] = self._unique(_COUNTER.sub("", wanted))

    def _unique(self, wanted: str) -> str:
        self._taken[wanted] += 1
        count = self._taken[wanted]
        return wanted if count == 1 else self._unique(f"{wanted}_{count}")

    def _rename(self, graph: Any, renamed: Callable[[str], str]) -> None:
        for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
            value.name = renamed(value.name)
        for node in graph.node:
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
            for inner in _graphs(node):
                self._rename(inner, renamed)
