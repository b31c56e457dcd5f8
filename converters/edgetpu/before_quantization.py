"""Predict which parts of a model that is not TFLite yet will not map to the Edge TPU after conversion.

This is a preliminary check based on layer and operator types only. `check_edgetpu` on the converted model is
definitive.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converters.check.report import ACCELERATOR, HOST, CompatibilityIssue, Node, Report
from converters.edgetpu.documented_rules import FIXES
from converters.edgetpu.mapping import EDGE_TPU
from converters.onnx.graph import read_onnx
from converters.onnx.shape_inference import macs_of_nodes

_FLOAT = CompatibilityIssue(
    "the Edge TPU computes only in 8-bit integers, and runs only TFLite",
    "quantize and convert first: edge convert MODEL --for DEVICE --calibration PICTURES, then check the .tflite",
)
_NOT_TFLITE = CompatibilityIssue(_FLOAT.reason, "after conversion this node may map")
_NO_EQUIVALENT = "the Edge TPU has no operation"

# Keras layers and activations, and ONNX operators, whose TFLite operator does not map: name → TFLite operator.
_KERAS = {
    "LeakyReLU": "LEAKY_RELU",
    "leaky_relu": "LEAKY_RELU",
    "ELU": "ELU",
    "elu": "ELU",
    "selu": "ELU",
    "gelu": "GELU",
    "hard_silu": "HARD_SWISH",
    "hard_swish": "HARD_SWISH",
    "log_softmax": "LOG_SOFTMAX",
    "Conv3D": "CONV_3D",
    "Bidirectional": "BIDIRECTIONAL_SEQUENCE_LSTM",
    "Embedding": "GATHER",
    "MultiHeadAttention": "BATCH_MATMUL",
    "Dot": "BATCH_MATMUL",
}
_ONNX = {
    "LeakyRelu": "LEAKY_RELU",
    "Elu": "ELU",
    "Gelu": "GELU",
    "HardSwish": "HARD_SWISH",
    "LogSoftmax": "LOG_SOFTMAX",
    "ArgMax": "ARG_MAX",
    "ArgMin": "ARG_MIN",
    "Div": "DIV",
    "Gather": "GATHER",
    "GatherND": "GATHER_ND",
    "DepthToSpace": "DEPTH_TO_SPACE",
}


def check_keras_layers(layers: Iterable[tuple[str, str, str]]) -> Report:
    """Check layers given as (class, activation, name), such as ("Conv2D", "relu6", "stem")."""
    return _report([(kind, name, _issue(_KERAS, kind, activation), 0) for kind, activation, name in layers])


def check_onnx_for_edgetpu(path: Path) -> Report:
    """Check the nodes of an `.onnx` file. Raises InputError if it is broken."""
    graph = read_onnx(path)
    macs = macs_of_nodes(graph) or [0] * len(graph.nodes)
    rows = zip(graph.nodes, macs, strict=True)
    return _report([(node.op, node.name, _issue(_ONNX, node.op, ""), count) for node, count in rows])


def _issue(known: dict[str, str], kind: str, activation: str) -> CompatibilityIssue | None:
    becomes = known.get(kind) or known.get(activation)
    return CompatibilityIssue(f"{_NO_EQUIVALENT} as {becomes}, which it becomes", FIXES[becomes]) if becomes else None


def _report(rows: list[tuple[str, str, CompatibilityIssue | None, int]]) -> Report:
    nodes, after = [], []
    for index, (kind, name, issue, macs) in enumerate(rows):
        problem = issue or _NOT_TFLITE
        own = index if issue else None
        nodes.append(
            Node(
                index=index,
                op=kind,
                name=name,
                placement=HOST,
                reason=problem.reason,
                fix=problem.fix,
                macs=macs,
                breaks=own,
            )
        )
        after.append(_after_quantization(nodes[-1], issue))
    return Report(
        accelerator=EDGE_TPU,
        nodes=tuple(nodes),
        refusals=(_FLOAT,),
        quantized=Report(accelerator=EDGE_TPU, nodes=tuple(after)),
    )


def _after_quantization(node: Node, issue: CompatibilityIssue | None) -> Node:
    """Return the node after quantization: on the accelerator, unless its type is known not to map."""
    return node if issue else Node(index=node.index, op=node.op, name=node.name, placement=ACCELERATOR, macs=node.macs)
