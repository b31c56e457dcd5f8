"""TFLite in any precision → a folder for the browser, where LiteRT.js runs the same file.

Nothing is converted, with one exception: LiteRT.js has no int64, so labels that ArgMax gives in int64 become int32.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, ClassVar

from converters.base import ConversionOutput, Converter
from converters.browser.engines import LITERT_JS
from converters.browser.folder import BrowserOptions, check_builds, check_tensors, notes_of, write_folder
from converters.library_calls import loading
from converters.options import ConvertOptions
from runtimes.errors import RefusedError

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.tflite.reader import Graph


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
        with loading(model, "TFLite"):
            main = read_tflite(model).graphs[0]
        _check_operators(main, model)
        with TemporaryDirectory() as work:
            outputs = [main.tensors[place].spec for place in main.outputs]
            if any(spec.dtype == "int64" for spec in outputs):
                model = _with_narrow_labels(model, Path(work) / model.name)
                main = read_tflite(model).graphs[0]
            check_tensors(LITERT_JS, [main.tensors[place].spec for place in (*main.inputs, *main.outputs)], model)
            return write_folder(model, out, LITERT_JS, options)


def _check_operators(graph: Graph, model: Path) -> None:
    """Raise RefusedError for an operator at which LiteRT.js 2.5.3 ends with "memory access out of bounds"."""
    if any(operator.name == _POST_PROCESS for operator in graph.operators):
        raise RefusedError(
            f"LiteRT.js does not run {_POST_PROCESS}, with which {model.name} ends",
            "export the model without its post-processing (raw boxes and scores)",
        )


def _with_narrow_labels(model: Path, out: Path) -> Path:
    """Write the model to `out`, with int32 in place of int64 for outputs of ArgMax and ArgMin."""
    from ai_edge_litert import schema_py_generated as schema

    from converters.tflite.writer import packed, read_network

    network = read_network(model)
    graph, kinds = network.subgraphs[0], schema.BuiltinOperator
    read = {int(place) for operator in graph.operators for place in operator.inputs}
    for operator in graph.operators:
        code, place = network.operatorCodes[operator.opcodeIndex], int(operator.outputs[0])
        is_label = max(code.builtinCode, code.deprecatedBuiltinCode) in (kinds.ARG_MAX, kinds.ARG_MIN)
        tensor = graph.tensors[place]
        if is_label and place in graph.outputs and place not in read and tensor.type == schema.TensorType.INT64:
            tensor.type = operator.builtinOptions.outputType = schema.TensorType.INT32
    out.write_bytes(packed(network))
    return out
