"""Models that are not TFLite yet: what in them will not map to the Edge TPU once they are quantised and converted.

From the types of layers and operators alone, so a first look only: what the converter makes of the model has the last
word, and `check_edgetpu` reads that.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from converters.check.onnx_graph import read_onnx
from converters.check.onnx_macs import macs_of_nodes
from converters.check.report import ACCELERATOR, HOST, Node, Problem, Report
from converters.edgetpu.documented import FIXES
from converters.edgetpu.mapping import EDGE_TPU

_FLOAT = Problem(
    "the Edge TPU computes in 8-bit integers only, and takes TFLite",
    "quantise and convert first: edge convert MODEL --for DEVICE --calibration PICTURES, then check the .tflite",
)
_NOT_TFLITE = Problem(_FLOAT.reason, "after conversion this node may map")
_NO_EQUIVALENT = "the Edge TPU has no operation"

# Keras layers and activations, and ONNX operators, that become a TFLite operator which does not map: name → that one.
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
    """Layers as (class, activation, name), such as ("Conv2D", "relu6", "stem")."""
    return _report([(kind, name, _trouble(_KERAS, kind, activation), 0) for kind, activation, name in layers])


def check_onnx_for_edgetpu(path: Path) -> Report:
    """The nodes of an `.onnx` file; InputError when it is broken."""
    graph = read_onnx(path)
    macs = macs_of_nodes(graph) or [0] * len(graph.nodes)
    rows = zip(graph.nodes, macs, strict=True)
    return _report([(node.op, node.name, _trouble(_ONNX, node.op, ""), count) for node, count in rows])


def _trouble(known: dict[str, str], kind: str, activation: str) -> Problem | None:
    becomes = known.get(kind) or known.get(activation)
    return Problem(f"{_NO_EQUIVALENT} as {becomes}, which it becomes", FIXES[becomes]) if becomes else None


def _report(rows: list[tuple[str, str, Problem | None, int]]) -> Report:
    nodes, after = [], []
    for index, (kind, name, trouble, macs) in enumerate(rows):
        problem = trouble or _NOT_TFLITE
        own = index if trouble else None
        nodes.append(Node(index, kind, name, HOST, problem.reason, problem.fix, macs, own))
        after.append(_after_quantisation(nodes[-1], trouble))
    return Report(EDGE_TPU, tuple(nodes), (_FLOAT,), quantised=Report(EDGE_TPU, tuple(after)))


def _after_quantisation(node: Node, trouble: Problem | None) -> Node:
    """The node after quantisation: on the accelerator, unless its type is known not to map."""
    return node if trouble else Node(node.index, node.op, node.name, ACCELERATOR, macs=node.macs)
