"""Infer the tensor shapes of an ONNX graph, and count its multiply-adds, without a library.

Shapes that the file declares are taken as they are. A free dimension counts as 1, as a batch does. If there is no rule
for an operator, the shapes that depend on it stay unknown.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from converters.onnx.graph import OnnxGraph, OnnxNode
from converters.onnx.shape_rules import KnownInputs, Sizes, UnknownSizeError, output_sizes
from converters.onnx.shape_values import Values, constant_values, output_values


def infer_sizes(graph: OnnxGraph) -> dict[str, Sizes]:
    """Return the sizes of every tensor for which they are declared or can be inferred."""
    declared = {
        name: tuple(size if isinstance(size, int) else 1 for size in shape) for name, shape in graph.shapes.items()
    }
    # An axis that is free in a tensor inside may have a size that follows from those of the inputs.
    fixed = {name for name, shape in graph.shapes.items() if all(isinstance(size, int) for size in shape)}
    known = {name: constant.shape for name, constant in graph.constants.items()}
    known.update((name, declared[name]) for name in (*fixed, *graph.inputs) if name in declared)
    values: dict[str, Values] = {}
    for node in graph.nodes:
        inputs = KnownInputs(
            node=node,
            sizes=[known.get(name) for name in node.inputs],
            values=[_values(name, graph, values) for name in node.inputs],
        )
        try:
            found = output_sizes(inputs)
        except UnknownSizeError:
            found = []
        for name, sizes in zip(node.outputs, found, strict=False):
            known.setdefault(name, sizes)
        for name in node.outputs:
            if name in declared:
                known.setdefault(name, declared[name])
        if node.outputs:
            computed = output_values(node, inputs.values, *map(known.get, (graph.input(node, 0), node.outputs[0])))
            if computed is not None:
                values[node.outputs[0]] = computed
    return {**declared, **known}


def _values(name: str, graph: OnnxGraph, values: Mapping[str, Values]) -> Values | None:
    constant = graph.constants.get(name)
    return values.get(name) if constant is None else constant_values(constant)


RECURRENT = ("LSTM", "GRU", "RNN")
_CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger")
_COUNTED = (*_CONVOLUTIONS, "ConvTranspose", "Gemm", "MatMul", "QLinearMatMul", "MatMulInteger", *RECURRENT)


def macs_of_nodes(graph: OnnxGraph) -> list[int] | None:
    """Return the multiply-adds of every node, in order. Returns None if a shape that they need is unknown."""
    sizes = infer_sizes(graph)
    counts = [_macs(node, graph, sizes) if node.op in _COUNTED else 0 for node in graph.nodes]
    known = [count for count in counts if count is not None]
    return known if len(known) == len(counts) else None


def _macs(node: OnnxNode, graph: OnnxGraph, sizes: dict[str, tuple[int, ...]]) -> int | None:
    first = sizes.get(graph.input(node, 0))
    second = sizes.get(graph.input(node, 3 if node.op.startswith("QLinear") else 1))
    output = sizes.get(node.outputs[0]) if node.outputs else None
    if node.op == "ConvTranspose":
        return None if first is None or second is None else prod(first) * prod(second[1:])
    if output is None or second is None:
        return None
    if node.op in RECURRENT:  # every step multiplies its input and the last state
        again = sizes.get(graph.input(node, 2))
        return None if first is None or again is None else prod(first[:2]) * (prod(second) + prod(again))
    if node.op in _CONVOLUTIONS:
        return prod(output) * prod(second[1:])
    inner = second[-1 if node.op == "Gemm" and node.integer("transB", 0) else -2 if len(second) > 1 else 0 :][:1]
    return prod(output) * prod(inner)
