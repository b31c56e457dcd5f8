"""ONNX → TFLite: fp32, fp16 weights, int8 weights (w8), or full int8.

onnx2tf rebuilds the network in TensorFlow, whose own converter does the rest. Both run in a separate environment,
because onnx2tf pins every library that it uses. We do not use the int8 files that onnx2tf writes itself: their dense
layers have one scale per output, which older runtimes silently misread.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement, feeds_for
from converters.environments import environment
from converters.library_calls import converting, loading
from converters.onnx.opset import shapes_for_batch
from converters.options import ConvertOptions
from converters.tflite import check_tflite
from runtimes.errors import EngineError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from runtimes.artifact.json_fields import JsonObject

_ENVIRONMENT = "onnx2tf"
_NEWEST_OPSET = 22
_NEWEST_IR = 10  # of that opset; ONNX Runtime in the environment opens none beyond 11
_MAX_CHANNELS = 4  # of a picture: more on the last axis are rows or columns
_TIMEOUT_S = 3000.0
_HINT = "the model may use an operation that onnx2tf lacks; start from the model that the .onnx was exported from"


class OnnxToTflite(Converter):
    """Static shapes, pictures in NHWC, the source's names. A full int8 model has inputs and outputs of `io_dtype`.

    That is uint8 by default. Inputs and outputs that are not pictures keep the axes of the source.
    """

    source = "onnx"
    target = "tflite"
    precisions = ("fp32", "fp16", "w8", "int8")
    requires = (Requirement("onnx", "table"),)

    def environments(self, _options: ConvertOptions) -> tuple[str, ...]:
        """The environment of onnx2tf."""
        return (_ENVIRONMENT,)

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.tflite`; see `base.Converter`. Raises HostError if the environment cannot be created."""
        from converters.onnx.float16_fit import fit_to_float16
        from converters.onnx.float16_range import save_model
        from converters.tflite.names import output_names, with_names

        self.check(options, calibration)
        check_tflite(options)
        assert options.batch is not None
        shapes = shapes_for_batch(model, options.batch)
        if not shapes:
            raise EngineError(f"{model} takes no inputs: onnx2tf does not convert it", "choose another target")
        proto = _readable(model, shapes)
        fit = fit_to_float16(model, proto, calibration) if options.precision == "fp16" else None
        if fit is not None:
            fit.check(model)
        path = out / f"{model.stem}.tflite"
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            given = save_model(proto, Path(folder) / "model.onnx")
            samples = Path(folder) / "samples.npz"
            if calibration is not None and options.precision == "int8":
                _save(calibration, list(shapes), samples)
            job: JsonObject = {
                "model": str(given.resolve()),
                "out": str(path.resolve()),
                "precision": options.precision,
                "io_dtype": options.io_dtype or "uint8",
                "shapes": shapes,
                "kept": kept_inputs(shapes),
                "samples": str(samples),
                "keep": list(options.keep),
                "outputs": (outputs := [value.name for value in proto.graph.output]),
            }
            environment(_ENVIRONMENT).run(job, _TIMEOUT_S, f"onnx2tf on {model}", _HINT)
        content = path.read_bytes()
        if len(output_names(content)) != len(outputs):
            what = f"onnx2tf writes {len(output_names(content))} of the {len(outputs)} outputs of {model}"
            raise EngineError(what, "those that do not depend on its inputs are left out: remove them from the model")
        path.write_bytes(with_names(content, list(shapes), outputs))
        if fit is None:
            return ConversionOutput(model=path)
        device_model = fit.device_model(options.scratch, f"{model.stem}.onnx")
        return ConversionOutput(model=path, facts=fit.facts, notes=fit.notes, device_model=device_model)

    def head_layers(self, _model: Path, result: Path) -> Sequence[tuple[str, ...]]:
        """See `converters.base.Converter`."""
        from converters.proof.tflite_origins import tflite_head_layers

        return tflite_head_layers(result)


def _readable(model: Path, shapes: Mapping[str, Sequence[int]]) -> Any:
    """Return the model as onnx2tf converts it correctly."""
    from converters.onnx.older_opset import at_most_opset
    from converters.onnx.pooling import pad_before_pooling
    from converters.onnx.recurrent import unroll_recurrent
    from converters.onnx.softmax import hardmax_by_comparison

    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model)
    with converting(model, "ONNX"):
        proto = at_most_opset(proto, _NEWEST_OPSET, "onnx2tf")
        proto.ir_version = min(proto.ir_version, _NEWEST_IR)
        hardmax_by_comparison(proto)
        pad_before_pooling(proto)
        unroll_recurrent(proto, shapes)
    return proto


def _save(calibration: Calibration, names: Sequence[str], path: Path) -> None:
    """Write the samples to an .npz, in the order of the model's inputs."""
    import numpy as np

    from runtimes.arrays import save_arrays

    feeds = list(feeds_for(calibration, names))
    save_arrays(path, {name: np.stack([feed[name] for feed in feeds]) for name in names})


def kept_inputs(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """Return the inputs whose axes are kept: all except channels-first pictures, which become NHWC.

    If all sizes are the same, the shape does not show that the axes were moved.
    """
    return [name for name, shape in shapes.items() if not _is_moved(shape)]


def _is_moved(shape: Sequence[int]) -> bool:
    is_channels_last = len(shape) == 4 and shape[3] <= _MAX_CHANNELS < shape[1]
    return len(shape) == 4 and not is_channels_last and len(set(shape[1:])) > 1
