"""Will a Movidius stick run this ONNX model? Node by node, for OpenVINO's MYRIAD plugin.

Sources: the plugin's layer parsers (src/plugins/intel_myriad/graph_transformer/src/frontend/frontend.cpp @07cd9b60 in
openvinotoolkit/openvino), its documentation (docs/OV_Runtime_UG/supported_plugins: VPU.md, Supported_Devices.md
@01bfc6a8). Which ONNX operators lead to those layers is how the converter of 2021.4 translates them. The last word
has `query_network` of the plugin itself, which answers without a stick.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from converters.check.onnx_graph import OnnxGraph, OnnxNode, read_onnx
from converters.check.onnx_macs import macs_of_nodes
from converters.check.report import ACCELERATOR, HOST, Node, Problem, Report

MOVIDIUS = "the Movidius stick"
_MAX_OPSET = 13

# ONNX operators that the plugin's layers can express. What the converter folds away counts as well.
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
    "LayerNormalization": "export with opset 13: it is then written in basic operations",
    "GroupNormalization": "export with opset 13: it is then written in basic operations",
}
_HETERO = "replace it, or run it on the host with HETERO:MYRIAD,CPU"


def check_movidius(path: Path) -> Report:
    """Check an `.onnx` file; InputError when it is broken."""
    graph = read_onnx(path)
    macs = macs_of_nodes(graph)
    nodes = tuple(_node(index, node, graph, macs[index] if macs else 0) for index, node in enumerate(graph.nodes))
    refusals, warnings = tuple(_refusals(graph)), tuple(_warnings(graph))
    return Report(MOVIDIUS, nodes, refusals, warnings, graph.parameter_bytes, extra={"opset": graph.opset})


def node_problem(node: OnnxNode, graph: OnnxGraph) -> Problem | None:
    """Why the plugin does not take the node; None where it does."""
    if node.op in _INTEGER_OPS:
        return Problem("the plugin computes in fp16 only, never in int8", "give the model before quantisation")
    if node.op not in _SUPPORTED:
        return Problem("the MYRIAD plugin has no such layer", _FIXES.get(node.op, _HETERO))
    return _condition(node, graph)


def _condition(node: OnnxNode, graph: OnnxGraph) -> Problem | None:
    rank = len(graph.shapes.get(graph.input(node, 0), ()))
    weights = graph.constants.get(graph.input(node, 1))
    if node.op in ("Conv", "ConvTranspose") and (rank == 5 or (weights is not None and len(weights.shape) == 5)):
        return Problem("the plugin has no 3-D convolution", "use 2-D convolutions")
    if node.op == "Pad" and rank and rank != 4:
        return Problem(f"it pads a tensor of {rank} dimensions, and the plugin 4 only", "reshape to 4 dimensions")
    if node.op == "Floor" and graph.dtypes.get(graph.input(node, 0), "float").startswith("int"):
        return Problem("the plugin floors fp16 only, no integers", "leave it out: an integer needs no floor")
    if node.op == "GatherElements" and node.integer("axis", 0) < 0:
        return Problem("its axis is negative", "count the axis from the front")
    return None


def _node(index: int, node: OnnxNode, graph: OnnxGraph, macs: int) -> Node:
    problem = node_problem(node, graph)
    if problem is None:
        return Node(index, node.op, node.name, ACCELERATOR, macs=macs)
    return Node(index, node.op, node.name, HOST, problem.reason, problem.fix, macs, index)


def _refusals(graph: OnnxGraph) -> Iterator[Problem]:
    if any(node.op in _INTEGER_OPS for node in graph.nodes):
        yield Problem("the model is quantised, and the plugin computes in fp16 only", "give the model in float")
    for name in graph.inputs:
        shape = graph.shapes.get(name, ())
        if any(isinstance(size, str) for size in shape):
            words = "×".join("?" if isinstance(size, str) else str(size) for size in shape)
            what = f"input {name} has the free shape {words}, and the plugin takes static shapes only"
            yield Problem(what, "convert it again: edge fixes the batch at 1")
            return


def _warnings(graph: OnnxGraph) -> Iterator[str]:
    if graph.opset > _MAX_OPSET:
        yield f"opset {graph.opset} is newer than the stick's converter knows: export with opset {_MAX_OPSET}"
    if any(node.op == "NonMaxSuppression" for node in graph.nodes):
        yield (
            "NonMaxSuppression runs up to its version 5 and with static output: OpenVINO 2021.4 writes that, later"
            " converters write version 9, which fails ('unsupported opset')"
        )
    if graph.nodes:
        yield "the stick computes in fp16: values beyond 65,504 overflow, so compare its answers with the source's"
