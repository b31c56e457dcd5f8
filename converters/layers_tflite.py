"""The values inside a TFLite network and its int8 twin, by LiteRT's own kernels (see `converters.blame`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.blame import Layer, Node, rank, stacked
from converters.calibration import Calibration
from converters.steps import feeds_for
from converters.tflite_graph import read_tflite
from runtimes.arrays import Array, Arrays
from runtimes.manifest import TensorSpec
from runtimes.tensors import dequantize, quantize

_CHANNELS = 3  # of [batch, height, width, channels]


def tflite_layers(model: Path, quantised: Path, samples: Calibration) -> list[Layer]:
    """The layers of the float file `model`, the worst in the int8 file `quantised` first.

    Layers bear the names of their output tensors, which TensorFlow's converter gives alike in both files.
    """
    graph = read_tflite(model).graphs[0]
    names = [tensor.spec.name for tensor in graph.tensors]
    nodes = [
        Node(tuple(names[index] for index in operator.inputs if index >= 0), names[operator.outputs[0]])
        for operator in graph.operators
    ]
    return rank(nodes, _values(model, samples), _values(quantised, samples), _CHANNELS)


def _values(path: Path, samples: Calibration) -> Arrays:
    """Every tensor that operators compute, as real numbers by its name."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = read_tflite(path).graphs[0]
    interpreter = Interpreter(
        str(path),
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    interpreter.allocate_tensors()
    inputs = graph.specs(graph.inputs)
    computed = [index for operator in graph.operators for index in operator.outputs]
    rows = []
    for feed in feeds_for(samples, [spec.name for spec in inputs]):
        _set_inputs(interpreter, inputs, graph.inputs, feed)
        interpreter.invoke()
        rows.append({graph.tensors[i].spec.name: _real(interpreter, i, graph.tensors[i].spec) for i in computed})
    return stacked(rows)


def _set_inputs(interpreter: Any, inputs: tuple[TensorSpec, ...], places: tuple[int, ...], feed: Arrays) -> None:
    for place, spec in zip(places, inputs, strict=True):
        interpreter.set_tensor(place, quantize(feed[spec.name], spec))


def _real(interpreter: Any, index: int, spec: TensorSpec) -> Array:
    values: Array = interpreter.get_tensor(index)
    return (
        values
        if values.dtype.kind == "f" or spec.quantization is None
        else np.asarray(dequantize(values, spec.quantization))
    )
