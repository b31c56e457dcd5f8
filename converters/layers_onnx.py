"""The values inside an ONNX network and its QDQ twin, by ONNX Runtime without any fusion (see `converters.blame`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.blame import Layer, Node, rank, stacked
from converters.calibration import Calibration
from converters.steps import feeds_for
from runtimes.arrays import Arrays

_CHANNELS = 1  # of [batch, channels, height, width]
# How ONNX Runtime's quantiser names what comes out of the pair around a tensor.
_ROUNDED = "_DequantizeLinear_Output"


def onnx_layers(model: Path, quantised: Path, samples: Calibration) -> list[Layer]:
    """The layers of the float file `model`, the worst in its QDQ file `quantised` first."""
    import onnx

    graph = onnx.load(model).graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [value.name for value in graph.input if value.name not in constants]
    nodes = [Node(tuple(node.input), node.output[0]) for node in graph.node if node.output]
    wanted = {node.output for node in nodes}
    values = _values(quantised, names, samples, wanted | {name + _ROUNDED for name in wanted})
    rounded = {name.removesuffix(_ROUNDED) for name in values if name.endswith(_ROUNDED)}
    given = {name.removesuffix(_ROUNDED): value for name, value in values.items()}
    return rank(nodes, _values(model, names, samples, wanted), given, _CHANNELS, rounded)


def _values(path: Path, names: list[str], samples: Calibration, wanted: set[str]) -> Arrays:
    """The wanted tensors as far as the network has them; the rounded form of a tensor comes after its plain one."""
    session, outputs = inner_session(path, wanted)
    found = [session.run(outputs, feed) for feed in feeds_for(samples, names)]
    return stacked([dict(zip(outputs, values, strict=True)) for values in found])


def inner_session(path: Path, wanted: set[str]) -> tuple[Any, list[str]]:
    """A session that computes as the file is written, with the wanted tensors as outputs, and their names."""
    import onnx
    import onnxruntime as ort

    model = onnx.load(path)
    there = {value.name for value in model.graph.output}
    for name in (name for node in model.graph.node for name in node.output if name in wanted - there):
        model.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    return session, sorted(outputs, key=lambda name: name.endswith(_ROUNDED))
