"""TFLite in any precision → a folder for the browser, where LiteRT.js runs the same file.

Three things are changed where they occur: inputs and outputs of a dtype that LiteRT.js lacks get an operator that casts
them, the outputs of TFLite_Detection_PostProcess get the sizes that such files leave out, and free sizes become those
that the file is stored with.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, ClassVar

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
    """The .tflite stays as it is where LiteRT.js runs it, so that phones and boards run the same file."""

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
                model, notes = _for_litert_js(model, Path(work) / model.name)
                main = read_tflite(model).graphs[0]
            check_tensors(LITERT_JS, main.specs((*main.inputs, *main.outputs)), model)
            return replace(write_folder(model, out, LITERT_JS, options), notes=notes)


def _for_litert_js(model: Path, out: Path) -> tuple[Path, tuple[str, ...]]:
    """Return the model as LiteRT.js takes it, the file as it is or a changed copy at `out`, and notes for the user."""
    from converters.tflite.reader import read_tflite

    main = read_tflite(model).graphs[0]
    _check_states(main, model)
    has_other_dtypes = any(spec.dtype not in LITERT_JS.dtypes for spec in main.specs((*main.inputs, *main.outputs)))
    has_open_sizes = any(operator.name == _POST_PROCESS for operator in main.operators)
    has_free_sizes = any(isinstance(size, str) for tensor in main.tensors for size in tensor.spec.shape)
    if not (has_other_dtypes or has_open_sizes or has_free_sizes):
        return model, ()
    from converters.tflite.end_dtypes import with_end_dtypes
    from converters.tflite.writer import read_network, serialize, write_inline

    network = read_network(write_inline(model, out))
    if has_open_sizes:
        _state_sizes(network.subgraphs[0], model)
    for tensor in network.subgraphs[0].tensors:
        tensor.shapeSignature = None  # it marks free sizes, which LiteRT.js does not take
    notes = with_end_dtypes(network, LITERT_JS.dtypes)
    out.write_bytes(serialize(network))
    return out, notes


def _check_states(graph: Graph, model: Path) -> None:
    """Raise RefusedError for a state in a variable tensor, with which LiteRT.js does not open a file."""
    for operator in graph.operators:
        if any(graph.tensors[place].is_variable for place in operator.inputs if place >= 0):
            what = f"LiteRT.js does not open {model.name}: {operator.name} keeps its state in a variable tensor"
            raise RefusedError(
                what, "convert the model that the file was made from: edge convert writes other operators"
            )


def _state_sizes(graph: Any, model: Path) -> None:
    """Set the sizes of the outputs to those that the native engine computes.

    Detectors leave those of TFLite_Detection_PostProcess empty, and LiteRT.js reserves memory for what the file says.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model))
    interpreter.allocate_tensors()
    for output in interpreter.get_output_details():
        graph.tensors[output["index"]].shape = output["shape"].tolist()
