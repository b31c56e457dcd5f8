"""Compare the inner tensors of an ONNX model with those of its QDQ model, using ONNX Runtime without fusion.

See `converters.layer_errors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.base import feeds_for
from converters.calibration.dataset import Calibration
from converters.layer_errors import GraphNode, LayerError, rank, stack_rows
from runtimes.arrays import Arrays

_CHANNELS = 1  # of [batch, channels, height, width]
# The suffix that ONNX Runtime's quantizer gives to the output of the QDQ pair behind a tensor.
_ROUNDED = "_DequantizeLinear_Output"


def onnx_layers(model: Path, quantized: Path, samples: Calibration) -> list[LayerError]:
    """Return the layers of the float file `model`, those with the largest error in its QDQ file `quantized` first."""
    import onnx

    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    nodes = [GraphNode(tuple(node.input), node.output[0]) for node in graph.node if node.output]
    wanted = {node.output for node in nodes}
    values = _values(quantized, names, samples, wanted | {name + _ROUNDED for name in wanted})
    rounded = {name.removesuffix(_ROUNDED) for name in values if name.endswith(_ROUNDED)}
    approximate = {name.removesuffix(_ROUNDED): value for name, value in values.items()}
    return rank(nodes, _values(model, names, samples, wanted), approximate, _CHANNELS, rounded)


def _values(path: Path, names: list[str], samples: Calibration, wanted: set[str]) -> Arrays:
    """Compute those of the wanted tensors that the model has. The rounded form of a tensor follows the plain one."""
    session, outputs = inner_session(path, wanted)
    results = [session.run(outputs, feed) for feed in feeds_for(samples, names)]
    return stack_rows([dict(zip(outputs, values, strict=True)) for values in results])


def inner_session(path: Path, wanted: set[str]) -> tuple[Any, list[str]]:
    """Open a session without graph optimization whose outputs include the wanted tensors.

    Returns the session and the names of its outputs.
    """
    import onnx
    import onnxruntime as ort

    model = onnx.load(path)
    existing = {value.name for value in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output if name in wanted - existing):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    return session, sorted(outputs, key=lambda name: name.endswith(_ROUNDED))
