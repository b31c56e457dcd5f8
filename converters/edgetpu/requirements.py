"""Requirements on the whole model: those of the Edge TPU compiler, else nothing is compiled, and right answers.

Sources: https://coral.ai/docs/edgetpu/models-intro (8 bits, constant sizes, constant parameters); the others are named
at each rule.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from converters.check.report import CompatibilityIssue
from converters.edgetpu.compiled_model import CUSTOM_OP
from converters.edgetpu.documented_rules import Condition
from converters.tflite.op import TfliteOp, is_constant
from converters.tflite.reader import Graph, Tensor, TfliteModel
from runtimes.errors import InputError

_FLOATS = ("float32", "float16", "bfloat16")


def refuse_compiled(model: TfliteModel, path: Path) -> None:
    """Raise InputError for a file that is already compiled."""
    if any(operator.is_custom and operator.name == CUSTOM_OP for operator in model.graphs[0].operators):
        what = f"{path} is already compiled for the Edge TPU"
        raise InputError(what, "show its content with `edge inspect`, or check the .tflite that it was compiled from")


def has_outside(model: TfliteModel) -> bool:
    """Whether weights or options are stored outside the FlatBuffer, which runtimes of the compiler's age ignore."""
    operators = (operator for graph in model.graphs for operator in graph.operators)
    return any(tensor.is_outside for graph in model.graphs for tensor in graph.tensors) or any(
        operator.has_outside_options for operator in operators
    )


def model_problems(model: TfliteModel, ops: list[TfliteOp]) -> Iterator[CompatibilityIssue]:
    """Generate the reasons why the compiler would refuse the model."""
    graph = model.graphs[0]
    yield from _dynamic(graph, ops)
    if not _quantized(graph):
        yield CompatibilityIssue("the model is not quantized; the Edge TPU computes only in 8-bit integers", _QUANTIZE)
    yield from _first_problem(ops, version_problem)


def misread(ops: list[TfliteOp]) -> Iterator[CompatibilityIssue]:
    """Generate the reason why a model that the compiler maps would compute wrong values."""
    yield from _first_problem(ops, _channels)


def _first_problem(ops: list[TfliteOp], condition: Condition) -> Iterator[CompatibilityIssue]:
    for index, op in enumerate(ops):
        problem = condition(op)
        if problem is not None:
            yield CompatibilityIssue(f"node {index} {op.type}: {problem.reason}", problem.fix)
            return


_QUANTIZE = "convert to full-integer int8 with calibration data: edge convert MODEL --for DEVICE --calibration PICTURES"


def is_float(graph: Graph) -> bool:
    """Return whether the graph computes only in floating point: it is not quantized, or only its weights are."""
    return not _quantized(graph) and any(tensor.spec.dtype in _FLOATS for tensor in graph.tensors)


def _dynamic(graph: Graph, ops: list[TfliteOp]) -> Iterator[CompatibilityIssue]:
    """Refuse free sizes other than the batch, and a free batch that operators compute sizes from.

    A free batch alone is compiled as 1 (dense_256 of github.com/ricardodeazambuja/LibrEdgeTPU). With an operator that
    reads it at run time, tensors are dynamic, and the compiler ends (google-coral/edgetpu issues 829, 831).
    """
    reader = next((index for index, op in enumerate(ops) if op.type == "SHAPE"), None)
    for spec in graph.specs(graph.inputs):
        free = [place for place, size in enumerate(spec.shape) if isinstance(size, str)]
        if not free or (free == [0] and reader is None):
            continue
        shape = "×".join("?" if isinstance(size, str) else str(size) for size in spec.shape)
        why = f"node {reader} SHAPE computes sizes from it" if free == [0] else "every size must be known in advance"
        what = f"input {spec.name} has the free shape {shape}; {why}"
        yield CompatibilityIssue(what, "convert it again: edge fixes the batch at 1")
        return


def with_batch_1(graph: Graph) -> Graph:
    """Return the graph with 1 for a free batch, as the compiler reads it."""
    if not any(spec.shape and isinstance(spec.shape[0], str) for spec in graph.specs(graph.inputs)):
        return graph
    return replace(graph, tensors=tuple(map(_batch_1, graph.tensors)))


def _batch_1(tensor: Tensor) -> Tensor:
    if not tensor.spec.shape or not isinstance(tensor.spec.shape[0], str):
        return tensor
    return replace(tensor, spec=replace(tensor.spec, shape=(1, *tensor.spec.shape[1:])))


def _quantized(graph: Graph) -> bool:
    """Return whether any computed tensor is quantized to 8 bits."""
    return any(
        tensor.spec.dtype in ("int8", "uint8") and tensor.spec.quantization is not None and not is_constant(tensor)
        for tensor in graph.tensors
    )


def version_problem(op: TfliteOp) -> CompatibilityIssue | None:
    """Return why this operator makes the compiler refuse the whole model; None if it does not."""
    known = newest_known(op.type)
    if op.operator.is_custom or op.operator.version <= known:
        return None
    upto = f"up to {known}" if known else "not at all"
    return CompatibilityIssue(
        f"version {op.operator.version}: the compiler uses {FROZEN_AT}, which supports this operator {upto}",
        "convert with an older converter, or with `edge convert --for coral-usb`, which writes supported versions",
    )


def _channels(op: TfliteOp) -> CompatibilityIssue | None:
    """Refuse dense weights with a scale for each output: runtimes of the compiler's age silently use only the first.

    The compiler maps such a layer (dense_256 of github.com/ricardodeazambuja/LibrEdgeTPU).
    """
    weights = op.input(1) if op.type == "FULLY_CONNECTED" else None
    if weights is None or weights.spec.quantization is None or len(weights.spec.quantization.scales) <= 1:
        return None
    return CompatibilityIssue(
        "its weights are quantized per channel, which the compiler maps, and runtimes of its age silently misread",
        "convert the float model: `edge convert --for coral-usb` writes one scale for each dense layer",
    )


# The operator versions that the compiler supports. It reads models with a frozen TFLite: a single operator of a later
# version, mappable or not, makes it reject the model ("Didn't find op for builtin opcode 'QUANTIZE' version '3'").
# Source: the release in which each version appeared, from FindMinimumRuntimeVersionForOp in
# tensorflow/lite/tools/versioning/runtime_version.cc (TensorFlow, Apache-2.0), up to release 2.5. That the last
# compiler (16.0, July 2021) uses TensorFlow 2.5 is inferred: libedgetpu of the same release builds against 2.5,
# and QUANTIZE 3, of 2.7, is refused (https://github.com/google-coral/edgetpu/issues/879).
FROZEN_AT = "TensorFlow 2.5"


# The newest supported version of operators that have more than one; all other supported operators are at version 1.
_NEWEST_VERSIONS = """
    ABS 3, ADD 3, ARG_MAX 2, ARG_MIN 2, AVERAGE_POOL_2D 3, BATCH_MATMUL 4, BATCH_TO_SPACE_ND 3,
    BIDIRECTIONAL_SEQUENCE_LSTM 3, BIDIRECTIONAL_SEQUENCE_RNN 3, BROADCAST_TO 3, CONCATENATION 3, CONV_2D 5,
    DEPTH_TO_SPACE 2, DEPTHWISE_CONV_2D 6, DEQUANTIZE 4, DIV 2, EMBEDDING_LOOKUP 3, EQUAL 3, FAKE_QUANT 2, FILL 3,
    FLOOR_DIV 2, FULLY_CONNECTED 9, GATHER 5, GATHER_ND 3, GREATER 2, GREATER_EQUAL 2, L2_NORMALIZATION 2,
    LEAKY_RELU 2, LESS 2, LESS_EQUAL 2, LOG_SOFTMAX 2, LOGISTIC 3, LSTM 4, MAX_POOL_2D 3, MAXIMUM 4, MEAN 3,
    MINIMUM 4, MIRROR_PAD 2, MUL 4, NOT_EQUAL 3, PACK 3, PAD 3, PADV2 3, QUANTIZE 2, REDUCE_MAX 3, REDUCE_MIN 3,
    RELU 3, RELU6 3, RESIZE_BILINEAR 4, RESIZE_NEAREST_NEIGHBOR 4, REVERSE_V2 3, RNN 3, RSQRT 2, SELECT 2, SLICE 5,
    SOFTMAX 3, SPACE_TO_BATCH_ND 3, SPACE_TO_DEPTH 2, SPARSE_TO_DENSE 3, SPLIT 4, SPLIT_V 2, SQUARED_DIFFERENCE 2,
    SQUEEZE 2, STRIDED_SLICE 5, SUB 5, SUM 2, SVDF 4, TANH 3, TILE 2, TOPK_V2 2, TRANSPOSE 5, TRANSPOSE_CONV 3,
    UNIDIRECTIONAL_SEQUENCE_LSTM 3, UNIDIRECTIONAL_SEQUENCE_RNN 3, UNPACK 4
"""


_NEWEST = {name: int(version) for name, version in (entry.split() for entry in _NEWEST_VERSIONS.split(","))}


_LATER_OPERATORS = """
    ASSIGN_VARIABLE ATAN2 BITCAST BITWISE_XOR BROADCAST_ARGS BUCKETIZE CONV_3D_TRANSPOSE DILATE DYNAMIC_UPDATE_SLICE
    GELU MULTINOMIAL RANDOM_STANDARD_NORMAL RANDOM_UNIFORM READ_VARIABLE REDUCE_ALL REDUCE_WINDOW RELU_0_TO_1
    RIGHT_SHIFT SIGN UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM VAR_HANDLE
"""


_LATER = frozenset(_LATER_OPERATORS.split())


def newest_known(name: str) -> int:
    """Return the newest version of a built-in operator that the compiler reads; 0 if it does not support it."""
    if name in _LATER or name.startswith(("STABLEHLO_", "UNKNOWN_")):
        return 0
    return _NEWEST.get(name, 1)
