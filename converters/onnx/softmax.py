"""Write softmax and hardmax for readers that misread their axes, and find the nodes that mask a softmax.

The model optimizer of OpenVINO 2021.4 reads Softmax of opset 13 as that of opset 11, which flattens every axis from the
given one on (https://github.com/openvinotoolkit/openvino/issues/9823). Over the last axis, both mean the same. MYRIAD
has no layer for LogSoftmax, nor for the Subtract of its stable formula: it becomes Log(Softmax).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from converters.onnx.cleanup import replace_all
from converters.onnx.op_rewrites import attribute_of
from converters.onnx.opset import opset_of

_LEAST_MASK = 1e3  # no score of attention is that large
# Also a Gemm whose bias is the mask: ONNX Runtime writes MatMul and Add as one before it quantizes.
_CARRIERS = {"Add", "Sub", "Mul", "Where", "Unsqueeze", "Squeeze", "Expand", "Reshape", "Transpose", "Cast", "Identity"}
_FIRST_PER_AXIS = 13  # before, softmax flattened the axes itself


def softmax_over_last_axis(proto: Any) -> bool:
    """Rewrite Softmax and LogSoftmax in the main graph of an `onnx.ModelProto`, in place; returns whether any was."""
    import onnx

    if opset_of(proto) < _FIRST_PER_AXIS or not any(node.op_type in _WRITERS for node in proto.graph.node):
        return False
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    ranks = {
        value.name: len(value.type.tensor_type.shape.dim)
        for value in (*inferred.input, *inferred.value_info, *inferred.output)
        if value.type.tensor_type.HasField("shape")
    }
    nodes: list[Any] = []
    changed = False
    for node in proto.graph.node:
        rank = ranks.get(node.input[0]) if node.op_type in _WRITERS and not node.domain else None
        replacement = list(_replacement(node, rank)) if rank else [node]
        changed |= replacement[0] is not node
        nodes += replacement
    if changed:
        replace_all(proto.graph.node, nodes)
    return changed


def _replacement(node: Any, rank: int) -> Iterator[Any]:
    from onnx import helper

    axis = next((one.i for one in node.attribute if one.name == "axis"), -1) % rank
    source, result = node.input[0], node.output[0]
    if axis == rank - 1:
        yield from _WRITERS[node.op_type](source, result, f"{result}/")
        return
    turn = [*(one for one in range(rank) if one != axis), axis]
    back = [turn.index(one) for one in range(rank)]
    yield helper.make_node("Transpose", [source], [f"{result}/turned"], perm=turn)
    yield from _WRITERS[node.op_type](f"{result}/turned", f"{result}/last", f"{result}/")
    yield helper.make_node("Transpose", [f"{result}/last"], [result], perm=back)


def _softmax(source: str, result: str, _prefix: str) -> list[Any]:
    from onnx import helper

    return [helper.make_node("Softmax", [source], [result], axis=-1)]


def _log_softmax(source: str, result: str, prefix: str) -> list[Any]:
    from onnx import helper

    return [
        *_softmax(source, f"{prefix}softmax", prefix),
        helper.make_node("Log", [f"{prefix}softmax"], [result]),
    ]


_WRITERS = {"Softmax": _softmax, "LogSoftmax": _log_softmax}


def hardmax_by_comparison(proto: Any) -> None:
    """Write Hardmax in the main graph of an `onnx.ModelProto` as a comparison of indices with ArgMax, in place.

    onnx2tf 1.29 moves the axis of a Hardmax to the end, and leaves it there.
    """
    import onnx
    from onnx import helper, numpy_helper

    if opset_of(proto) < _FIRST_PER_AXIS or not any(node.op_type == "Hardmax" for node in proto.graph.node):
        return
    inferred = onnx.shape_inference.infer_shapes(proto).graph
    types = {value.name: value.type.tensor_type for value in (*inferred.input, *inferred.value_info)}
    nodes: list[Any] = []
    for node in proto.graph.node:
        known = types.get(node.input[0]) if node.op_type == "Hardmax" else None
        sizes = [dim.dim_value for dim in known.shape.dim] if known is not None else []
        axis = attribute_of(node, "axis", -1)
        if known is None or not sizes or not sizes[axis]:
            nodes.append(node)
            continue
        result = node.output[0]
        largest, indices, equal = (f"{result}/{name}" for name in ("largest", "indices", "equal"))
        shape = [1] * len(sizes)
        shape[axis] = sizes[axis]
        proto.graph.initializer.append(numpy_helper.from_array(np.arange(sizes[axis]).reshape(shape), indices))
        nodes += [
            helper.make_node("ArgMax", [node.input[0]], [largest], axis=axis, keepdims=1),
            helper.make_node("Equal", [largest, indices], [equal]),
            helper.make_node("Cast", [equal], [result], to=known.elem_type),
        ]
    replace_all(proto.graph.node, nodes)


def masking_nodes(model: Any) -> list[Any]:
    """Return the nodes of an `onnx.ModelProto` that carry a mask to a softmax, and those softmaxes.

    A mask adds -1e4 or less to the scores that it hides. One int8 scale for that and the scores themselves makes a step
    of 40 or more: every score that matters becomes the same, unless these nodes stay in float.
    """
    from onnx import numpy_helper

    masks = [one.name for one in model.graph.initializer if _is_mask(numpy_helper.to_array(one))]
    carriers: dict[str, tuple[Any, ...]] = dict.fromkeys(masks, ())
    found: dict[int, Any] = {}
    for node in model.graph.node:  # sorted, as ONNX demands
        if node.op_type == "Constant":
            value = next((one.t for one in node.attribute if one.name == "value"), None)
            if value is not None and _is_mask(numpy_helper.to_array(value)):
                carriers[node.output[0]] = ()
            continue
        masked = [one for name in node.input if name in carriers for one in carriers[name]]
        if not any(name in carriers for name in node.input):
            continue
        if node.op_type == "Softmax":
            found |= {id(one): one for one in (*masked, node)}
        elif node.op_type in _CARRIERS or (node.op_type == "Gemm" and node.input[-1] in carriers):
            carriers[node.output[0]] = (*masked, node)
    return list(found.values())


def _is_mask(values: Any) -> bool:
    return values.dtype.kind == "f" and values.size > 0 and bool(np.abs(values.astype(np.float64)).max() >= _LEAST_MASK)
