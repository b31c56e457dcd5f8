"""TFLite in any precision → a folder for the browser, where LiteRT.js runs the same file. Nothing is converted here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from converters.base import ConversionOutput, Converter
from converters.browser.engines import LITERT_JS
from converters.browser.folder import BrowserOptions, check_builds, check_tensors, notes_of, write_folder
from converters.library_calls import loading
from converters.options import ConvertOptions

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration


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
        check_tensors(LITERT_JS, [main.tensors[place].spec for place in (*main.inputs, *main.outputs)], model)
        return write_folder(model, out, LITERT_JS, options)
