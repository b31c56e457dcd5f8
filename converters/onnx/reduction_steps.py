"""Write out the reductions that devices compute in several steps, and store each of them in fp16.

TensorRT's parser, onnx2tf and the Movidius plugin make squares, a sum and a root of a ReduceL2. The squares leave the
range of fp16 long before the result does. ONNX Runtime and OpenVINO have one kernel for it, with sums in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from converters.onnx.cleanup import graphs_of, replace_all
from converters.onnx.opset import opset_of

_AXES_AS_INPUT = 13  # the first opset in which ReduceSum takes its axes as an input; the others follow with 18
# Reduction → the operators before and after the sum; "" for none.
_REDUCTIONS: Mapping[str, tuple[str, str]] = {
    "ReduceL2": ("Mul", "Sqrt"),
    "ReduceLogSum": ("", "Log"),
    "ReduceLogSumExp": ("Exp", "Log"),
    "ReduceSumSquare": ("Mul", ""),
}


def write_out_reductions(proto: Any) -> dict[str, tuple[str, str]]:
    """Replace such reductions of an `onnx.ModelProto` by their steps, in place; in branches and bodies too.

    Returns the tensors inside them: {name: (the reduction's result, its operator)}.
    """
    inside: dict[str, tuple[str, str]] = {}
    opset = opset_of(proto)
    for graph in graphs_of(proto.graph):
        nodes = []
        for node in graph.node:
            if node.op_type not in _REDUCTIONS or node.domain not in ("", "ai.onnx"):
                nodes.append(node)
                continue
            steps = list(_steps(node, opset))
            inside.update((step.output[0], (node.output[0], node.op_type)) for step in steps)
            nodes += steps
        replace_all(graph.node, nodes)
    return inside


def _steps(node: Any, opset: int) -> Iterator[Any]:
    from onnx import helper, numpy_helper

    before, after = _REDUCTIONS[node.op_type]
    source, result = node.input[0], node.output[0]
    if before:
        yield helper.make_node(before, [source] * (2 if before == "Mul" else 1), [f"{result}/elements"])
        source = f"{result}/elements"
    total = type(node)()
    total.CopyFrom(node)
    total.op_type = "ReduceSum"
    total.input[0] = source
    total.output[0] = f"{result}/sum" if after else result
    axes = next((one for one in node.attribute if one.name == "axes"), None)
    if axes is not None and opset >= _AXES_AS_INPUT:
        total.attribute.remove(axes)
        total.input.append(f"{result}/axes")
        values = numpy_helper.from_array(np.array(axes.ints, np.int64))
        yield helper.make_node("Constant", [], [f"{result}/axes"], value=values)
    yield total
    if after:
        yield helper.make_node(after, [total.output[0]], [result])
