"""ONNX with float or int8 weights → a folder for the browser, where ONNX Runtime Web runs the same file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from converters.base import ConversionOutput, Converter, Requirement
from converters.browser.engines import ORT_WEB
from converters.browser.folder import BrowserOptions, check_builds, check_tensors, notes_of, write_folder
from converters.library_calls import loading
from converters.options import ConvertOptions
from runtimes.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.calibration.dataset import Calibration
    from runtimes.artifact import TensorSpec


class OnnxToBrowser(Converter):
    """w8 is the small download. int8 is not offered: ONNX Runtime Web runs it slower than fp32."""

    source = "onnx"
    target = "browser"
    precisions = ("w8", "fp32")
    requires = (Requirement("onnx", "table"),)
    packs = True
    rank = 1  # a .tflite runs faster in a browser
    Options: ClassVar[type[ConvertOptions]] = BrowserOptions

    def check_options(self, options: ConvertOptions) -> None:
        """See `converters.base.Converter`."""
        check_builds(ORT_WEB, options)

    def plan_notes(self, options: ConvertOptions) -> tuple[str, ...]:
        """The engine and its size."""
        return notes_of(ORT_WEB, options)

    def convert(
        self,
        model: Path,
        out: Path,
        options: ConvertOptions,
        calibration: Calibration | None,
    ) -> ConversionOutput:
        """Write the folder; see `converters.base.Converter`. Raises RefusedError for what ORT-web does not take."""
        self.check(options, calibration)
        check_tensors(ORT_WEB, _specs(model), model)
        return write_folder(model, out, ORT_WEB, options)


def _specs(model: Path) -> Sequence[TensorSpec]:
    """Return the inputs and outputs. Raises RefusedError for weights in other files, which a page cannot open."""
    from runtimes.artifact import TensorSpec
    from runtimes.model_files.onnx import external_files

    with loading(model, "ONNX"):
        import onnx

        proto = onnx.load(model, load_external_data=False)
        is_whole = not external_files(model)
        if is_whole:
            onnx.checker.check_model(proto)
        constants = {tensor.name for tensor in proto.graph.initializer}
        tensors = [*(one for one in proto.graph.input if one.name not in constants), *proto.graph.output]
        specs = []
        for tensor in tensors:
            kind = tensor.type.tensor_type
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
            specs.append(TensorSpec(tensor.name, dtype, tuple(dim.dim_value or "n" for dim in kind.shape.dim)))
    if not is_whole:
        raise RefusedError(
            f"the weights of {model.name} are in other files, which a page does not open",
            "save it as one file (onnx.save without external data)",
        )
    return specs
