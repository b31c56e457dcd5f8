"""Keras → TFLite through TensorFlow's own converter: fp32, fp16 weights, int8 weights (w8), or full int8."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.keras_source import load_keras, traced
from converters.layers_tflite import tflite_layers
from converters.quiet import converting
from converters.steps import StepOptions, check_options, feeds_for
from runtimes.arrays import Arrays
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from converters.blame import Layer
    from converters.calibration import Calibration

_IO_DTYPES = ("uint8", "int8", "float32")


class Step:
    """Static shapes, NHWC. A full int8 model takes and gives `io_dtype`, uint8 by default, as pictures are."""

    source = "keras"
    target = "tflite"
    precisions = ("fp32", "fp16", "w8", "int8")
    requires = ("tensorflow", "keras")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.tflite`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        _check(options)
        source = load_keras(model)
        function = traced(source, model, options.batch)
        with converting(model, "TensorFlow's TFLite converter"):
            converter = _converter(function.get_concrete_function())
            _set_precision(converter, options)
            if options.precision == "int8" and calibration is not None:
                _set_int8(converter, options.io_dtype or "uint8", [i.name for i in source.inputs], calibration)
            content = _kept(converter, options.keep) if options.keep else converter.convert()
        path = out / f"{model.stem}.tflite"
        path.write_bytes(content)
        return path

    def layer_errors(self, model: Path, result: Path, options: StepOptions, samples: Calibration) -> list[Layer]:
        """See `converters.blame.KeepsLayers`."""
        with tempfile.TemporaryDirectory() as folder:
            plain = self.convert(model, Path(folder), StepOptions(batch=options.batch), None)
            with converting(model, "LiteRT"):
                return tflite_layers(plain, result, samples)


def _check(options: StepOptions) -> None:
    if options.batch is None:
        raise UsageError("a TFLite model needs a fixed batch", "leave the batch at 1")
    wanted = options.io_dtype
    if wanted is None or (options.precision == "int8" and wanted in _IO_DTYPES) or wanted == "float32":
        return
    known = _IO_DTYPES if options.precision == "int8" else ("float32",)
    raise UsageError(f"TFLite {options.precision} cannot take {wanted}", f"inputs and outputs: {', '.join(known)}")


def _converter(function: Any) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # Variables left in the graph are read as uninitialised while it is calibrated.
    frozen = convert_variables_to_constants_v2(function)
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def _set_precision(converter: Any, options: StepOptions) -> None:
    import tensorflow as tf

    if options.precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]


def _set_int8(converter: Any, io_dtype: str, names: list[str], calibration: Calibration) -> None:
    import tensorflow as tf

    converter.representative_dataset = lambda: (list(feed.values()) for feed in _ordered(calibration, names))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io_dtype)
    # Runtimes of the Edge TPU compiler's age read only the first scale of a dense layer, and answer wrong.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _ordered(calibration: Calibration, names: list[str]) -> Iterator[Arrays]:
    return ({name: feed[name] for name in names} for feed in feeds_for(calibration, names))


def _kept(converter: Any, layers: tuple[str, ...]) -> bytes:
    """The int8 model with the layers that write the tensors `layers` in float32.

    As `tf.lite.experimental.QuantizationDebugger` makes it, which cannot take the settings of `_set_int8`.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    converter._experimental_calibrate_only = True
    content: bytes = mlir_quantize(
        converter.convert(),
        input_data_type=converter.inference_input_type,
        output_data_type=converter.inference_output_type,
        denylisted_nodes=list(layers),
        disable_per_channel_for_dense_layers=True,
    )
    return content
