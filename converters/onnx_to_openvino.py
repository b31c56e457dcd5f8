"""ONNX → OpenVINO IR: fp32, fp16 weights, or int8 by NNCF."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.quiet import converting, loading
from converters.steps import StepOptions, check_library, check_options, feeds_for

if TYPE_CHECKING:
    from converters.calibration import Calibration


class Step:
    """Writes `<model name>.xml`, with the weights beside it in `.bin`."""

    source = "onnx"
    target = "openvino"
    precisions = ("fp32", "fp16", "int8")
    requires = ("openvino",)

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write the IR; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        network = _read(model)
        if options.precision == "int8" and calibration is not None:
            check_library("nncf", "onnx_to_openvino int8")
            with converting(model, "NNCF"):
                network = _quantised(network, calibration)
        path = out / f"{model.stem}.xml"
        with converting(model, "OpenVINO"):
            import openvino

            openvino.save_model(network, path, compress_to_fp16=options.precision == "fp16")
        return path


def _read(model: Path) -> Any:
    with loading(model, "ONNX"):
        import openvino

        return openvino.convert_model(model)


def _quantised(network: Any, calibration: Calibration) -> Any:
    import nncf

    names = [port.get_any_name() for port in network.inputs]
    dataset = nncf.Dataset(list(feeds_for(calibration, names)))
    return nncf.quantize(network, dataset, subset_size=len(calibration))
