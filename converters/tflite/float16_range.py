"""Check the constants and tensors of a TFLite model with fp16 weights against the range of fp16.

LiteRT computes such a model in float32 on a CPU; its GPU delegate computes in fp16.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from converters.base import feeds_for
from converters.calibration.dataset import Calibration
from converters.tflite.interpreter import inspection_interpreter
from converters.tflite.op import graph_ops
from converters.tflite.reader import read_tflite
from runtimes.errors import RefusedError
from runtimes.tensors import quantize

_FLOAT16_MAX = 65504.0
_MAX_SAMPLES = 8
_HINT = "use --precision fp32, or train with smaller values there; --calibration passes real inputs"


def check_float16_range(path: Path, samples: Calibration | None) -> None:
    """Raise RefusedError, naming the constant or the tensor and its operator, if fp16 cannot hold one.

    A single constant of minus infinity is a mask and stays. With `samples` None, only constants are checked.
    """
    graph = read_tflite(path).graphs[0]
    interpreter = inspection_interpreter(path)
    interpreter.allocate_tensors()
    computed = {index for operator in graph.operators for index in operator.outputs}
    for index, tensor in enumerate(graph.tensors):
        if tensor.spec.dtype == "float16" and tensor.constant_bytes and index not in computed:
            values = interpreter.get_tensor(index)
            # TensorFlow's converter clamps values beyond the range to its end.
            if values.size > 1 and (np.abs(values) >= _FLOAT16_MAX).any():
                raise _beyond(path, f"the constant '{tensor.spec.name}' exceeds the range")
    writers = {
        place: op.type
        for op, operator in zip(graph_ops(graph), graph.operators, strict=True)
        for place in operator.outputs
    }
    inputs = graph.specs(graph.inputs)
    names = [spec.name for spec in inputs]
    if samples is None or (len(names) > 1 and set(samples.samples) != set(names)):
        return
    for feed in islice(feeds_for(samples, names), _MAX_SAMPLES):
        for place, spec in zip(graph.inputs, inputs, strict=True):
            interpreter.set_tensor(place, quantize(feed[spec.name], spec))
        interpreter.invoke()
        for place, op in writers.items():
            if graph.tensors[place].spec.dtype == "float32" and op != "DEQUANTIZE":
                values = interpreter.get_tensor(place)
                reach = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
                if reach > _FLOAT16_MAX:
                    raise _beyond(path, f"'{graph.tensors[place].spec.name}' ({op}) reaches {reach:.2g}")


def _beyond(path: Path, what: str) -> RefusedError:
    return RefusedError(f"{path.name} does not fit in fp16: {what}; fp16 ends at {_FLOAT16_MAX:.0f}", _HINT)
