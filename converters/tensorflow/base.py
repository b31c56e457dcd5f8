"""Common base of the converters from Keras and SavedModel, which differ only in how they trace the model."""

from __future__ import annotations

import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from converters.base import ConversionOutput, Converter
from converters.library_calls import converting
from converters.onnx.opset import check_opset, choose_opset
from converters.options import ConvertOptions
from converters.tflite import check_tflite

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.layer_errors import LayerError
    from converters.tensorflow.tracing import TracedFunction

# JetPack 5 and later, OpenVINO and ONNX Runtime read it; JetPack 4.6 needs 13.
DEFAULT_OPSET = 17
_OLDEST, _NEWEST = 11, 18  # tf2onnx 1.17 cannot write newer opsets


class TracingConverter(Converter):
    """A converter whose source is traced into one TensorFlow function."""

    @abstractmethod
    def trace(
        self, model: Path, batch: int | None, shapes: Sequence[str] = (), *, unroll: bool = False
    ) -> TracedFunction:
        """Trace the model into a function, with a free batch at `batch` (None: free) and its inputs in `shapes`.

        Other free sizes stay free. `unroll` writes recurrent layers out step by step, if the source allows that. Raises
        InputError if the model is broken.
        """

    def keeps_free_sizes(self, _options: ConvertOptions) -> bool:
        """Return whether free sizes stay free: yes, the interpreter of TFLite resizes its inputs."""
        return True


class SavedmodelConverter(TracingConverter):
    """A converter of SavedModels, whose serving signature is traced."""

    source = "savedmodel"

    def trace(
        self,
        model: Path,
        batch: int | None,
        shapes: Sequence[str] = (),
        *,
        unroll: bool = False,  # noqa: ARG002 - a signature is a graph already
    ) -> TracedFunction:
        """See `TracingConverter`."""
        from converters.tensorflow.models import trace_savedmodel

        return trace_savedmodel(model, batch, shapes)


class OnnxConverter(TracingConverter):
    """Converts to ONNX with tf2onnx. With `batch` None the batch stays free."""

    target = "onnx"
    precisions = ("fp32",)

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.onnx`; see `converters.base.Converter`."""
        from converters.tensorflow.tracing import to_onnx

        self.check(options, calibration)
        opset = choose_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, "tf2onnx")
        source = self.trace(model, options.batch, options.shapes)
        if source.stateful:
            return _by_way_of_tflite(source, model, out, options)
        with converting(model, "tf2onnx"):
            proto = to_onnx(source, opset)
        check_opset(proto, opset, "tf2onnx")
        path = out / f"{model.stem}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return ConversionOutput(model=path, states=source.states)


def _by_way_of_tflite(source: TracedFunction, model: Path, out: Path, options: ConvertOptions) -> ConversionOutput:
    """Write an ONNX file whose states are inputs and outputs, as those of a TFLite file: tf2onnx would freeze them."""
    from converters.tensorflow.tracing import to_tflite
    from converters.tflite_to_onnx import TfliteToOnnx

    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        path = Path(folder) / f"{model.stem}.tflite"
        with converting(model, "TensorFlow's TFLite converter"):
            path.write_bytes(to_tflite(source, ConvertOptions(), None))
        return TfliteToOnnx().convert(path, out, options, None)


class TfliteConverter(TracingConverter):
    """Converts to TFLite with static shapes.

    The inputs and outputs of a full int8 model have the type `io_dtype`, by default uint8, the type of image pixels.
    """

    target = "tflite"
    precisions = ("fp32", "fp16", "w8", "int8")
    keeps_layers = True

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write `<model name>.tflite`; see `converters.base.Converter`."""
        self.check(options, calibration)
        check_tflite(options)
        return self._write(model, out, options, calibration, unroll=options.precision == "int8")

    def _write(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None, unroll: bool
    ) -> ConversionOutput:
        from converters.tensorflow.tracing import to_tflite

        source = self.trace(model, options.batch, options.shapes, unroll=unroll)
        with converting(model, "TensorFlow's TFLite converter"):
            content = to_tflite(source, options, calibration)
        path = out / f"{model.stem}.tflite"
        path.write_bytes(content)
        if options.precision == "fp16":
            from converters.tflite.float16_range import check_float16_range

            with converting(model, "LiteRT"):
                check_float16_range(path, calibration)
        return ConversionOutput(model=path)

    def head_layers(self, _model: Path, result: Path) -> Sequence[tuple[str, ...]]:
        """See `converters.base.Converter`."""
        from converters.proof.tflite_origins import tflite_head_layers

        return tflite_head_layers(result)

    def layer_errors(
        self, model: Path, result: Path, options: ConvertOptions, samples: Calibration
    ) -> Sequence[LayerError]:
        """See `converters.base.Converter`."""
        from converters.tflite.layer_errors import tflite_layers

        with tempfile.TemporaryDirectory() as folder:
            floats = ConvertOptions(batch=options.batch, shapes=options.shapes)
            plain = self._write(model, Path(folder), floats, None, unroll=True)
            with converting(model, "LiteRT"):
                return tflite_layers(plain.model, result, samples)
