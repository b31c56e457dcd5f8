"""Check whether a Movidius stick can run an ONNX model, node by node, for OpenVINO's MYRIAD plugin.

Sources: the plugin's layer parsers (src/plugins/intel_myriad/graph_transformer/src/frontend/frontend.cpp @07cd9b60 in
openvinotoolkit/openvino), its documentation (docs/OV_Runtime_UG/supported_plugins: VPU.md, Supported_Devices.md
@01bfc6a8). The mapping from ONNX operators to those layers is that of the converter of 2021.4. The definitive answer
comes from the plugin's own `query_network`, which works without a stick.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from converters.check.report import CompatibilityIssue, Node, Report, place_node
from converters.onnx.graph import OnnxGraph, OnnxNode, read_onnx
from converters.onnx.shape_inference import macs_of_nodes

MOVIDIUS = "the Movidius stick"
_MAX_OPSET = 13

# ONNX operators that the plugin's layers can express, including those that the converter folds away.
_SUPPORTED_OPERATORS = """
    Abs Add And ArgMax ArgMin AveragePool BatchNormalization Cast Ceil Clip Concat Constant ConstantOfShape Conv
    ConvTranspose DepthToSpace Div Dropout Elu Equal Erf Exp Expand Flatten Floor Gather GatherElements GatherND Gemm
    GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual HardSigmoid HardSwish Identity InstanceNormalization
    LeakyRelu Less LessOrEqual Log LpNormalization LRN LSTM MatMul Max MaxPool MeanVarianceNormalization Mean Min Mul
    Neg NonMaxSuppression NonZero Not OneHot Or Pad Pow PRelu Reciprocal ReduceL2 ReduceMax ReduceMean ReduceMin
    ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScatterElements ScatterND Shape
    Sigmoid Slice Softmax Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Unsqueeze Upsample
    Where Gelu Mish
"""
_SUPPORTED = frozenset(_SUPPORTED_OPERATORS.split())
_INTEGER_OPS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
    "DynamicQuantizeLinear",
)
_FIXES = {
    "Einsum": "write it as Transpose, Reshape and MatMul",
    "GRU": "use LSTM, or unroll it",
    "RNN": "use LSTM, or unroll it",
    "If": "export the branch that is taken",
    "Loop": "export it unrolled",
    "GridSample": "resize with Resize instead, or run it on the host",
}
# Operators that `edge convert` writes in older ones (`converters.onnx.older_opset`, `converters.onnx.softmax`).
_REWRITTEN = frozenset(("GroupNormalization", "HardSwish", "LayerNormalization", "LogSoftmax", "Gelu", "Mish", "Swish"))
_HETERO = "replace it, or run it on the host with HETERO:MYRIAD,CPU"


def check_movidius(path: Path) -> Report:
    """Check an `.onnx` file. Raises InputError if it is broken."""
    graph = read_onnx(path)
    macs = macs_of_nodes(graph)
    nodes = tuple(_node(index, node, graph, macs[index] if macs else 0) for index, node in enumerate(graph.nodes))
    refusals, warnings = tuple(_refusals(graph)), tuple(_warnings(graph))
    return Report(
        accelerator=MOVIDIUS,
        nodes=nodes,
        refusals=refusals,
        warnings=warnings,
        parameter_bytes=graph.parameter_bytes,
        extra={"opset": graph.opset},
    )


def node_problem(node: OnnxNode, graph: OnnxGraph) -> CompatibilityIssue | None:
    """Return why the plugin does not support the node; None if it does."""
    if node.op in _INTEGER_OPS:
        return CompatibilityIssue("the plugin computes only in fp16, not in int8", "use the model before quantization")
    if node.op not in _SUPPORTED | _REWRITTEN:
        return CompatibilityIssue("the MYRIAD plugin does not support this layer", _FIXES.get(node.op, _HETERO))
    return _condition(node, graph)


def _condition(node: OnnxNode, graph: OnnxGraph) -> CompatibilityIssue | None:
    rank = len(graph.shapes.get(graph.input(node, 0), ()))
    weights = graph.constants.get(graph.input(node, 1))
    if node.op in ("Conv", "ConvTranspose") and (rank == 5 or (weights is not None and len(weights.shape) == 5)):
        return CompatibilityIssue("the plugin does not support 3-D convolutions", "use 2-D convolutions")
    if node.op == "Pad" and rank and rank != 4:
        return CompatibilityIssue(
            f"it pads a tensor of {rank} dimensions; the plugin supports only 4", "reshape to 4 dimensions"
        )
    if node.op == "Floor" and graph.dtypes.get(graph.input(node, 0), "float").startswith("int"):
        return CompatibilityIssue("the plugin floors only fp16, not integers", "leave it out: integers need no floor")
    if node.op == "GatherElements" and node.integer("axis", 0) < 0:
        return CompatibilityIssue("its axis is negative", "count the axis from the front")
    return None


def _node(index: int, node: OnnxNode, graph: OnnxGraph, macs: int) -> Node:
    how = "" if node.op in _SUPPORTED else "edge convert writes it in basic operations"
    problem = node_problem(node, graph)
    return place_node(index=index, op=node.op, name=node.name, problem=problem, macs=macs, how=how)


def _refusals(graph: OnnxGraph) -> Iterator[CompatibilityIssue]:
    if any(node.op in _INTEGER_OPS for node in graph.nodes):
        yield CompatibilityIssue("the model is quantized; the plugin computes only in fp16", "use the float model")
    for name in graph.inputs:
        shape = graph.shapes.get(name, ())
        if any(isinstance(size, str) for size in shape):
            words = "×".join("?" if isinstance(size, str) else str(size) for size in shape)
            what = f"input {name} has the free shape {words}; the plugin supports only static shapes"
            yield CompatibilityIssue(what, "convert it again: edge fixes the batch at 1")
            return


def _warnings(graph: OnnxGraph) -> Iterator[str]:
    if graph.opset > _MAX_OPSET:
        yield (
            f"opset {graph.opset} is newer than the stick's converter supports ({_MAX_OPSET}): edge convert brings it"
            " down where the meaning allows"
        )
    if any(node.op == "NonMaxSuppression" for node in graph.nodes):
        yield (
            "NonMaxSuppression runs up to version 5 and with static output: OpenVINO 2021.4 writes that; later"
            " converters write version 9, which fails ('unsupported opset')"
        )
    if graph.nodes:
        yield "the stick computes in fp16: values beyond 65,504 overflow, so compare its results with the source's"
