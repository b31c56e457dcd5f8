"""ONNX fp32 → fp16: weights and activations, with a look first whether all of them fit.

A CPU runs such a model in float32 and would never notice what overflows on the device, so the float model is run with
all its tensors laid open, and those beyond fp16's range are named.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration import Calibration
from converters.layers_onnx import inner_session
from converters.proof import fed
from converters.steps import feeds_for
from converters.synthetic import synthetic
from converters.truth import opened
from runtimes.arrays import Array
from runtimes.artifact import Artifact, Manifest
from runtimes.errors import EngineError

LARGEST = 65504.0  # of IEEE 754 binary16
_MOST_SAMPLES = 8


def to_half(path: Path, samples: Calibration | None, io_dtype: str) -> Any:
    """The `onnx.ModelProto` in fp16, its inputs and outputs of `io_dtype` (float32 or float16).

    EngineError when a weight, or a tensor inside on one of the samples (None: seeded ones), does not fit in fp16.
    """
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = onnx.load(path)
    _check_weights(path, model)
    _check_tensors(path, model, samples or _seeded(path))
    half = OnnxModel(convert_float_to_float16(model, keep_io_types=io_dtype == "float32"))
    half.topological_sort(is_deterministic=True)  # the casts of inputs were added at the end
    onnx.checker.check_model(half.model)
    return half.model


def _check_weights(path: Path, model: Any) -> None:
    from onnx import TensorProto, numpy_helper

    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            _check_fits(path, f"the weight '{tensor.name}'", numpy_helper.to_array(tensor))


def _check_tensors(path: Path, model: Any, samples: Calibration) -> None:
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value.name for value in model.graph.input if value.name not in constants]
    session, names = inner_session(path, {name for node in model.graph.node for name in node.output if name})
    for feed in islice(feeds_for(samples, inputs), _MOST_SAMPLES):
        for name, values in zip(names, session.run(names, feed), strict=True):
            if isinstance(values, np.ndarray) and values.dtype == np.float32:
                _check_fits(path, f"'{name}'", values)


def _check_fits(path: Path, name: str, values: Array) -> None:
    """Infinities are the model's own: masks are made of them, and fp16 has them too."""
    finite = np.abs(values[np.isfinite(values)])
    # The lowest of all floats stands for minus infinity in masks, and becomes the lowest of fp16.
    reach = finite[finite < np.finfo(np.float32).max].max(initial=0.0)
    if reach > LARGEST:
        what = f"{path} does not fit in fp16: {name} reaches {reach:.3g}, and fp16 ends at {LARGEST:.0f}"
        raise EngineError(what, "ask for --precision fp32, or train with smaller values there")


def _seeded(path: Path) -> Calibration:
    artifact = Artifact(path.parent, Manifest(path.stem, "onnx", "fp32", path.name))
    with opened(artifact) as session:
        return Calibration(fed(session.inputs, synthetic(session.inputs, None).samples))
