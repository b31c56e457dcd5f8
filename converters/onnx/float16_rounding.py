"""Write a float32 ONNX model that computes as a device does in fp16, for ONNX Runtime on a CPU.

A device stores constants and activations in fp16; ONNX Runtime keeps float32 between the nodes of an fp16 graph, even
without optimization, and OpenVINO and LiteRT compute in float32 too. Here each constant is rounded, and each computed
tensor passes through a cast to fp16 and back, which also overflows as fp16 does. Sums within a node stay float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from converters.onnx.cleanup import graphs_of, replace_all

# Operators that only move or choose values: rounded inputs give rounded outputs.
_MOVING_OPERATORS = """
    Abs Concat Constant ConstantOfShape DepthToSpace Dropout Expand Flatten Gather GatherElements GatherND Identity If
    Loop Max MaxPool Min Neg NonMaxSuppression OneHot Pad ReduceMax ReduceMin Relu Reshape ReverseSequence Scan
    ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Tile TopK Transpose Unsqueeze Where
"""
_MOVERS = frozenset(_MOVING_OPERATORS.split())


def round_to_float16(folded: Any) -> Any:
    """Return a copy of a folded `onnx.ModelProto` (`float16_range.fold_constants`) that rounds its values to fp16."""
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(folded)
    floats = _float_tensors(proto)
    _round_inputs(proto)
    for graph in graphs_of(proto.graph):
        _round_constants(graph)
        _round_nodes(graph, floats)
    del proto.graph.value_info[:]
    return proto


def _float_tensors(proto: Any) -> set[str]:
    """Return the names of all tensors known to be float32, in branches and bodies too."""
    import onnx

    inferred = onnx.shape_inference.infer_shapes(proto)
    return {
        value.name
        for graph in graphs_of(inferred.graph)
        for value in (*graph.input, *graph.value_info, *graph.output)
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def _round_inputs(proto: Any) -> None:
    """Round float inputs for all their readers; the inputs themselves keep names and types."""
    from onnx import TensorProto

    constants = {tensor.name for tensor in proto.graph.initializer}
    floats = [
        value.name
        for value in proto.graph.input
        if value.name not in constants and value.type.tensor_type.elem_type == TensorProto.FLOAT
    ]
    renamed = {name: f"{name}/rounded" for name in floats}
    for graph in graphs_of(proto.graph):
        for node in graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
    casts = [node for name in floats for node in _casts(name, renamed[name])]
    replace_all(proto.graph.node, [*casts, *proto.graph.node])


def _round_constants(graph: Any) -> None:
    from onnx import TensorProto, numpy_helper

    tensors = [*graph.initializer]
    tensors += [
        one.t for node in graph.node if node.op_type == "Constant" for one in node.attribute if one.HasField("t")
    ]
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            with np.errstate(over="ignore"):
                values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def _round_nodes(graph: Any, floats: set[str]) -> None:
    nodes = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type in _MOVERS:
            continue
        for place, name in enumerate(node.output):
            if name in floats:
                node.output[place] = f"{name}/exact"
                nodes += _casts(f"{name}/exact", name)
    replace_all(graph.node, nodes)


def _casts(source: str, result: str) -> list[Any]:
    from onnx import TensorProto, helper

    half = f"{result}/half"
    return [
        helper.make_node("Cast", [source], [half], to=TensorProto.FLOAT16),
        helper.make_node("Cast", [half], [result], to=TensorProto.FLOAT),
    ]
