"""Multiply-adds of ONNX nodes, by the formulas of `tflite_macs` for ONNX's layouts.

Conv           output elements × input channels of a group × kernel
ConvTranspose  input elements × output channels of a group × kernel
Gemm, MatMul   output elements × inner dimension
"""

from __future__ import annotations

from math import prod

from converters.check.onnx_graph import OnnxGraph, OnnxNode
from converters.check.onnx_shapes import infer_sizes

_COUNTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")


def macs_of_nodes(graph: OnnxGraph) -> list[int] | None:
    """The multiply-adds of every node, in order; None where the shapes that it takes cannot be told."""
    sizes = infer_sizes(graph)
    counts = [_macs(node, graph, sizes) if node.op in _COUNTED else 0 for node in graph.nodes]
    known = [count for count in counts if count is not None]
    return known if len(known) == len(counts) else None


def _macs(node: OnnxNode, graph: OnnxGraph, sizes: dict[str, tuple[int, ...]]) -> int | None:
    first = sizes.get(graph.input(node, 0))
    second = sizes.get(graph.input(node, 3 if node.op.startswith("QLinear") else 1))
    made = sizes.get(node.outputs[0]) if node.outputs else None
    if node.op == "ConvTranspose":
        return None if first is None or second is None else prod(first) * prod(second[1:])
    if made is None or second is None:
        return None
    if node.op in ("Conv", "QLinearConv", "ConvInteger"):
        return prod(made) * prod(second[1:])
    inner = second[-1 if node.op == "Gemm" and node.integer("transB", 0) else -2 if len(second) > 1 else 0 :][:1]
    return prod(made) * prod(inner)
