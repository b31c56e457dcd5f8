"""Compare the inner tensors of a TFLite model with those of its int8 model, using LiteRT's own kernels.

See `converters.layer_errors`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from converters.base import feeds_for
from converters.calibration.dataset import Calibration
from converters.layer_errors import GraphNode, LayerError, rank, stack_rows
from converters.tflite.interpreter import inspection_interpreter
from converters.tflite.reader import read_tflite
from runtimes.arrays import Array, Arrays
from runtimes.artifact.manifest import TensorSpec
from runtimes.tensors import dequantize, quantize

_CHANNELS = 3  # of [batch, height, width, channels]


def tflite_layers(model: Path, quantized: Path, samples: Calibration) -> list[LayerError]:
    """Return the layers of the float file `model`, those with the largest error in the int8 file `quantized` first.

    Layers are named after their output tensors, whose names TensorFlow's converter keeps the same in both files.
    """
    graph = read_tflite(model).graphs[0]
    names = [tensor.spec.name for tensor in graph.tensors]
    nodes = [
        GraphNode(tuple(names[index] for index in operator.inputs if index >= 0), names[operator.outputs[0]])
        for operator in graph.operators
    ]
    return rank(nodes, _values(model, samples), _values(quantized, samples), _CHANNELS)


def _values(path: Path, samples: Calibration) -> Arrays:
    """Return every computed tensor as real numbers, by name."""
    graph = read_tflite(path).graphs[0]
    interpreter = inspection_interpreter(path)
    interpreter.allocate_tensors()
    inputs = graph.specs(graph.inputs)
    computed = [index for operator in graph.operators for index in operator.outputs]
    rows = []
    for feed in feeds_for(samples, [spec.name for spec in inputs]):
        _set_inputs(interpreter, inputs, graph.inputs, feed)
        interpreter.invoke()
        rows.append({graph.tensors[i].spec.name: _real(interpreter, i, graph.tensors[i].spec) for i in computed})
    return stack_rows(rows)


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
