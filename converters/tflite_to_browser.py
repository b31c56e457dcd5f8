"""TFLite in any precision → a folder for the browser, where LiteRT.js runs the same file.

Two things are changed where they occur: LiteRT.js has no int64, so labels that ArgMax gives in int64 become int32, and
the outputs of TFLite_Detection_PostProcess get the sizes that such files leave out.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

from converters.base import ConversionOutput, Converter
from converters.browser.engines import LITERT_JS
from converters.browser.folder import BrowserOptions, check_builds, check_tensors, notes_of, write_folder
from converters.library_calls import loading
from converters.options import ConvertOptions

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

_POST_PROCESS = "TFLite_Detection_PostProcess"


class TfliteToBrowser(Converter):
    """The .tflite stays as it is, so phones and boards run the same file."""

    source = "tflite"
    target = "browser"
    precisions = ("int8", "w8", "fp16", "fp32")
    packs = True
    Options: ClassVar[type[ConvertOptions]] = BrowserOptions

    def check_options(self, options: ConvertOptions) -> None:
        """See `converters.base.Converter`."""
        check_builds(LITERT_JS, options)

    def plan_notes(self, options: ConvertOptions) -> tuple[str, ...]:
        """The engine and its size."""
        return notes_of(LITERT_JS, options)

    def convert(
        self,
        model: Path,
        out: Path,
        options: ConvertOptions,
        calibration: Calibration | None,  # noqa: ARG002 - nothing is quantized here
    ) -> ConversionOutput:
        """Write the folder; see `converters.base.Converter`. Raises RefusedError for what LiteRT.js does not run."""
        from converters.tflite.reader import read_tflite

        self.check_precision(options.precision)
        with TemporaryDirectory() as work:
            with loading(model, "TFLite"):
                model = _for_litert_js(model, Path(work) / model.name)
                main = read_tflite(model).graphs[0]
            check_tensors(LITERT_JS, main.specs((*main.inputs, *main.outputs)), model)
            return write_folder(model, out, LITERT_JS, options)


def _for_litert_js(model: Path, out: Path) -> Path:
    """Return the model as LiteRT.js takes it: the file as it is, or a changed copy at `out`."""
    from converters.tflite.reader import read_tflite

    main = read_tflite(model).graphs[0]
    has_wide_labels = any(spec.dtype == "int64" for spec in main.specs(main.outputs))
    has_open_sizes = any(operator.name == _POST_PROCESS for operator in main.operators)
    if not has_wide_labels and not has_open_sizes:
        return model
    from converters.tflite.writer import packed, read_network

    network = read_network(model)
    if has_wide_labels:
        _narrow_labels(network)
    if has_open_sizes:
        _state_sizes(network.subgraphs[0], model)
    out.write_bytes(packed(network))
    return out


def _narrow_labels(network: Any) -> None:
    """Set int32 in place of int64 for outputs of ArgMax and ArgMin."""
    from ai_edge_litert import schema_py_generated as schema

    graph, kinds = network.subgraphs[0], schema.BuiltinOperator
    read = {int(place) for operator in graph.operators for place in operator.inputs}
    for operator in graph.operators:
        code, place = network.operatorCodes[operator.opcodeIndex], int(operator.outputs[0])
        is_label = max(code.builtinCode, code.deprecatedBuiltinCode) in (kinds.ARG_MAX, kinds.ARG_MIN)
        tensor = graph.tensors[place]
        if is_label and place in graph.outputs and place not in read and tensor.type == schema.TensorType.INT64:
            tensor.type = operator.builtinOptions.outputType = schema.TensorType.INT32


def _state_sizes(graph: Any, model: Path) -> None:
    """Set the sizes of the outputs to those that the native engine computes.

    Detectors leave those of TFLite_Detection_PostProcess empty, and LiteRT.js reserves memory for what the file says.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model))
    interpreter.allocate_tensors()
    for output in interpreter.get_output_details():
        graph.tensors[output["index"]].shape = output["shape"].tolist()
