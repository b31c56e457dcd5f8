"""ONNX → TFLite: fp32, fp16 weights, int8 weights (w8), or full int8.

onnx2tf rebuilds the network in TensorFlow, whose own converter does the rest; both run in an environment of their own,
as onnx2tf pins every library that it uses. The int8 files that onnx2tf writes itself have a scale for each output of a
dense layer, which older runtimes read wrong without a word.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.environments import environment
from converters.onnx_pooling import pad_before_pooling
from converters.onnx_shapes import fixed_shapes
from converters.quiet import loading
from converters.steps import StepOptions, check_options, feeds_for
from converters.tflite_options import check_tflite
from runtimes.worker import save_arrays

if TYPE_CHECKING:
    from converters.calibration import Calibration

_ENVIRONMENT = "onnx2tf"
_NEWEST_OPSET = 22
_MOST_CHANNELS = 4  # of a picture: more on the last axis are rows or columns
_TIMEOUT_S = 3000.0
_HINT = "the model may use an operation that onnx2tf lacks; start from the model that the .onnx was exported from"


class Step:
    """Static shapes, pictures in NHWC. A full int8 model takes and gives `io_dtype`, uint8 by default."""

    source = "onnx"
    target = "tflite"
    precisions = ("fp32", "fp16", "w8", "int8")
    requires = ("onnx",)

    def environments(self, _options: StepOptions) -> tuple[str, ...]:
        """See `converters.steps.environments_of`."""
        return (_ENVIRONMENT,)

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.tflite`; see `converters.steps.Step`. HostError where the environment cannot be made."""
        check_options(self, options, calibration)
        check_tflite(options)
        assert options.batch is not None
        shapes = fixed_shapes(model, options.batch, _NEWEST_OPSET)
        path = out / f"{model.stem}.tflite"
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            samples = Path(folder) / "samples.npz"
            if calibration is not None:
                _save(calibration, list(shapes), samples)
            job = {
                "model": str(_readable(model, Path(folder)).resolve()),
                "out": str(path.resolve()),
                "precision": options.precision,
                "io_dtype": options.io_dtype or "uint8",
                "shapes": shapes,
                "kept": kept_inputs(shapes),
                "samples": str(samples),
            }
            environment(_ENVIRONMENT).run(job, _TIMEOUT_S, f"onnx2tf on {model}", _HINT)
        return path


def _readable(model: Path, folder: Path) -> Path:
    """The model as onnx2tf converts it rightly: itself, or a copy in `folder`."""
    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model)
        if not pad_before_pooling(proto):
            return model
        copy = folder / "model.onnx"
        onnx.save(proto, copy)
        return copy


def _save(calibration: Calibration, names: Sequence[str], path: Path) -> None:
    """The samples as an .npz, in the order of the model's inputs."""
    feeds = list(feeds_for(calibration, names))
    save_arrays(path, {name: np.stack([feed[name] for feed in feeds]) for name in names})


def kept_inputs(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Inputs whose axes stay as they are: all but pictures with the channels first, which become NHWC."""
    return [name for name, shape in shapes.items() if len(shape) != 4 or shape[3] <= _MOST_CHANNELS < shape[1]]
