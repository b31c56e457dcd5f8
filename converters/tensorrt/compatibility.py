"""Check whether TensorRT can build an engine from an ONNX model, node by node, for a release of a Jetson.

Sources: docs/operators.md and docs/Changelog.md of https://github.com/onnx/onnx-tensorrt at its 8.2, 8.4, 8.5, 8.6 and
10.1 branches. No engine is built if the parser does not support a single node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from converters.check.report import CompatibilityIssue, Node, Report, place_node
from converters.onnx.graph import OnnxGraph, OnnxNode, read_onnx
from converters.onnx.quantized_graph import REWRITTEN_OPERATORS
from converters.onnx.shape_inference import macs_of_nodes
from converters.tensorrt.io_types import cast_issue, float_inputs, type_refusals

Release = tuple[int, int]

_FIRST: Release = (8, 2)
_BASE = """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat
    Constant ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu
    Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool
    GlobalMaxPool Greater GreaterOrEqual GRU HardSigmoid Identity If ImageScaler InstanceNormalization IsNaN LeakyRelu
    Less LessOrEqual Log LogSoftmax Loop LRN LSTM LpNormalization LpPool MatMul Max MaxPool Mean Min Mul Neg
    NonMaxSuppression Not Or Pad ParametricSoftplus Pow PRelu QuantizeLinear RandomUniform RandomUniformLike Range
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare
    Relu Reshape Resize ReverseSequence RNN Round ScaledTanh Scan Scatter ScatterElements ScatterND Selu Shape Sigmoid
    Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum Tan Tanh ThresholdedRelu
    Tile TopK Transpose Unsqueeze Upsample Where
"""
# What each release added.
_ADDED: dict[Release, str] = {
    (8, 4): "HardSwish RandomNormal RandomNormalLike Reciprocal Shrink Xor",
    (8, 5): "GridSample MeanVarianceNormalization Mod NonZero OneHot RoiAlign Trilu",
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (10, 1): "CastLike DeformConv Gelu Hardmax Mish",
}
_SINCE = dict.fromkeys(_BASE.split(), _FIRST) | {
    name: release for release, names in _ADDED.items() for name in names.split()
}

_QUANTIZED_OPS = frozenset(("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"))
# Operators that `edge convert` rewrites in operators that every release has (`converters.onnx.op_rewrites`).
REWRITTEN = {
    "CastLike": "Cast",
    "Gelu": "its formula, with Erf or Tanh",
    "GroupNormalization": "InstanceNormalization over the groups",
    "HardSwish": "x × HardSigmoid(x)",
    "LayerNormalization": "its formula, with ReduceMean",
    "MeanVarianceNormalization": "its formula, with ReduceMean",
    "Mish": "x × Tanh(Softplus(x))",
    "Reciprocal": "1 ÷ x",
    "Swish": "x × Sigmoid(x)",
}
_FIXES = {
    "GridSample": "resize with Resize instead, or keep this part out of the engine",
    "OneHot": "compare a constant range with the indices (Equal, Cast)",
    "NonZero": "use Where or TopK: outputs whose size depends on the values are new in TensorRT 8.5",
    "Mod": "write it as a − b × Floor(a ÷ b)",
    "Trilu": "store the triangular mask as a constant",
    "RoiAlign": "keep the second stage out of the engine",
}
_KEEP_OUT = "replace it by supported operations, or keep it out of the engine"


@dataclass(frozen=True, kw_only=True)
class TensorrtTarget:
    """One board.

    Attributes:
        release: Its release of TensorRT.
        max_opset: The newest ONNX opset that the release reads.
        refused: The precisions that its GPU lacks, with the reason.
        rewrites: Whether operators that `edge convert` rewrites are accepted.
        requantizes: Whether asymmetric scales and integer operators are accepted, which `edge convert` writes as
            symmetric pairs (`converters.tensorrt.quantized_source`).
    """

    release: Release
    max_opset: int
    refused: dict[str, CompatibilityIssue] = field(default_factory=dict)
    rewrites: bool = True
    requantizes: bool = False

    @property
    def name(self) -> str:
        """The display name, such as "TensorRT 8.2"."""
        return f"TensorRT {self.release[0]}.{self.release[1]}"


def check_tensorrt(path: Path, target: TensorrtTarget) -> Report:
    """Check an `.onnx` file. Raises InputError if it is broken."""
    graph = read_onnx(path)
    macs = macs_of_nodes(graph)
    problems = [node_problem(node, graph, target) for node in graph.nodes]
    nodes = tuple(
        _node(index, node, problem, macs[index] if macs else 0, target)
        for index, (node, problem) in enumerate(zip(graph.nodes, problems, strict=True))
    )
    return Report(
        accelerator=target.name,
        nodes=nodes,
        refusals=tuple(_refusals(problems, graph, target)),
        warnings=tuple(_warnings(graph, target)),
        parameter_bytes=graph.parameter_bytes,
        extra={"opset": graph.opset, "release": target.name},
    )


def node_problem(node: OnnxNode, graph: OnnxGraph, target: TensorrtTarget) -> CompatibilityIssue | None:
    """Return why this release does not support the node; None if it does."""
    refused_int8 = target.refused.get("int8")
    if node.op in REWRITTEN_OPERATORS and target.requantizes:
        return refused_int8
    if "." in node.op:
        domain = node.op.rpartition(".")[0]
        return CompatibilityIssue(
            f"{target.name} does not support operators of {domain}", "export without them, or write a plugin"
        )
    if node.op in _QUANTIZED_OPS:
        fix = "quantize with QuantizeLinear and DequantizeLinear (QDQ) in place of integer operators"
        return CompatibilityIssue("no release of TensorRT supports integer operators", fix)
    since = _SINCE.get(node.op)
    if target.rewrites and is_rewritten(node.op, target.release):
        return None
    if since is None:
        return CompatibilityIssue(f"{target.name} does not support it", _FIXES.get(node.op, _KEEP_OUT))
    if since > target.release:
        reason = f"{target.name} does not support it; TensorRT {since[0]}.{since[1]} does"
        return CompatibilityIssue(reason, _FIXES.get(node.op, _KEEP_OUT))
    return _condition(node, graph, target)


def is_rewritten(op: str, release: Release) -> bool:
    """Return whether the release lacks the operator and `edge convert` rewrites it."""
    return op in REWRITTEN and (op not in _SINCE or _SINCE[op] > release)


def _condition(node: OnnxNode, graph: OnnxGraph, target: TensorrtTarget) -> CompatibilityIssue | None:
    if node.op == "Cast":
        return cast_issue(node, target.release, target.name)
    if node.op in ("QuantizeLinear", "DequantizeLinear"):
        return _quantization(node, graph, target)
    if node.op == "Resize" and node.word("mode", "nearest") not in ("nearest", "linear"):
        return CompatibilityIssue(f"it resizes with mode {node.word('mode', '')}", "use nearest or linear")
    if node.op == "MaxPool" and len([name for name in node.outputs if name]) > 1:
        return CompatibilityIssue("the indices of a MaxPool are not available", "use its first output only")
    return _constants(node, graph, target)


def _quantization(node: OnnxNode, graph: OnnxGraph, target: TensorrtTarget) -> CompatibilityIssue | None:
    refused = target.refused.get("int8")
    if refused is not None or target.requantizes:
        return refused
    zero = graph.constants.get(graph.input(node, 2))
    if zero is not None and zero.dtype == "uint8":
        return CompatibilityIssue(
            "it quantizes to uint8; TensorRT supports only int8", "quantize activations to int8, symmetrically"
        )
    if zero is not None and not zero.is_zero:
        return CompatibilityIssue("its zero point is not 0", "quantize symmetrically, so that all zero points are 0")
    return None


# Inputs that must be constants: operator → index of the input, its meaning, first release without the rule.
_CONSTANT_INPUTS: dict[str, tuple[int, str, Release]] = {
    "Conv": (1, "weights", (8, 5)),
    "ConvTranspose": (1, "weights", (8, 5)),
    "TopK": (1, "K", (8, 6)),
    "CumSum": (1, "axis", (99, 0)),
    "Squeeze": (1, "axes", (8, 6)),
    "Unsqueeze": (1, "axes", (8, 6)),
    "Slice": (3, "axes", (8, 6)),
}


def _constants(node: OnnxNode, graph: OnnxGraph, target: TensorrtTarget) -> CompatibilityIssue | None:
    place, what, free_since = _CONSTANT_INPUTS.get(node.op, (0, "", _FIRST))
    name = graph.input(node, place) if target.release < free_since else ""
    if not name or graph.is_constant(name):
        return None
    return CompatibilityIssue(
        f"{target.name} requires its {what} to be constant", "export with constant folding, or fix the value"
    )


def _node(index: int, node: OnnxNode, problem: CompatibilityIssue | None, macs: int, target: TensorrtTarget) -> Node:
    how = f"edge convert writes it as {REWRITTEN[node.op]}" if is_rewritten(node.op, target.release) else ""
    return place_node(index=index, op=node.op, name=node.name, problem=problem, macs=macs, how=how)


def _refusals(
    problems: list[CompatibilityIssue | None], graph: OnnxGraph, target: TensorrtTarget
) -> Iterator[CompatibilityIssue]:
    missing = Counter(node.op for node, problem in zip(graph.nodes, problems, strict=True) if problem)
    if missing:
        ops = ", ".join(f"{count} × {op}" if count > 1 else op for op, count in sorted(missing.items()))
        yield CompatibilityIssue(
            f"{target.name} cannot build an engine because of unsupported nodes: {ops}", "fix these nodes"
        )
    yield from type_refusals(graph, target.release, target.name, target.rewrites)


def _warnings(graph: OnnxGraph, target: TensorrtTarget) -> Iterator[str]:
    counts = Counter(node.op for node in graph.nodes if is_rewritten(node.op, target.release))
    for op, count in sorted(counts.items()):
        yield f"{target.name} does not support {op}: edge convert writes {count} of them as {REWRITTEN[op]}"
    for one in float_inputs(graph, target.release) if target.rewrites else ():
        yield (
            f"{target.name} does not take {one.dtype} as this model's input '{one.name}' does: edge convert writes it"
            " as float32, and the host casts its values"
        )
    if graph.opset > target.max_opset:
        yield (
            f"opset {graph.opset} is newer than {target.name} supports ({target.max_opset}): its parser warns and may"
            f" fail; export with opset {target.max_opset}, or let edge convert downgrade it"
        )
    if target.release < (9, 0) and _has_int64(graph):
        yield f"{target.name} casts INT64 down to INT32, and clamps what does not fit"
    if any("float64" in (graph.dtypes.get(name), _constant_type(graph, name)) for name in _tensors(graph)):
        yield f"{target.name} casts DOUBLE down to FLOAT"
    if any(isinstance(size, str) for name in graph.inputs for size in graph.shapes.get(name, ())):
        yield "an input has a free dimension: the engine needs a profile with its minimum, typical and maximum size"
    if target.release < (8, 5) and any(node.op == "NonMaxSuppression" for node in graph.nodes):
        yield f"NonMaxSuppression is experimental in {target.name}: its output has a fixed size and is padded"
    if any(node.op == "QuantizeLinear" for node in graph.nodes) and not target.refused.get("int8"):
        yield "int8 was slower than fp16 for some models (NVIDIA/TensorRT issues 993, 3197): measure both on the board"


def _has_int64(graph: OnnxGraph) -> bool:
    """Return whether a model input is INT64. Shapes and axes always are, which is harmless."""
    return any(graph.dtypes.get(name) == "int64" for name in graph.inputs)


def _constant_type(graph: OnnxGraph, name: str) -> str:
    constant = graph.constants.get(name)
    return constant.dtype if constant else ""


def _tensors(graph: OnnxGraph) -> Iterator[str]:
    yield from graph.dtypes
    yield from graph.constants
