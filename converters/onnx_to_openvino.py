"""ONNX → OpenVINO IR: fp32, fp16 weights, or int8 by NNCF."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.layers_openvino import openvino_layers
from converters.movidius import ENVIRONMENT, convert_for_myriad
from converters.quiet import converting, loading, no_telemetry
from converters.steps import Made, StepOptions, check_library, check_options, feeds_for

if TYPE_CHECKING:
    from converters.blame import Layer
    from converters.calibration import Calibration


class Step:
    """Writes `<model name>.xml`, with the weights beside it in `<model name>.bin`.

    Where the device wants an old release (the Movidius stick), `converters.movidius` does the work.
    """

    source = "onnx"
    target = "openvino"
    precisions = ("fp32", "fp16", "int8")
    requires = ("openvino",)

    def environments(self, options: StepOptions) -> tuple[str, ...]:
        """See `converters.steps.environments_of`."""
        return () if options.release is None else (ENVIRONMENT,)

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path | Made:
        """Write the IR; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        if options.release is not None:
            return convert_for_myriad(model, out, options)
        no_telemetry()
        network = _read(model, options)
        if options.precision == "int8" and calibration is not None:
            check_library("nncf", "onnx_to_openvino int8")
            with converting(model, "NNCF"):
                network = _quantised(network, calibration, options.keep)
        path = out / f"{model.stem}.xml"
        with converting(model, "OpenVINO"):
            import openvino

            _name_by_place(network)
            openvino.save_model(network, path, compress_to_fp16=options.precision == "fp16")
        return path

    def layer_errors(self, model: Path, result: Path, options: StepOptions, samples: Calibration) -> list[Layer]:
        """See `converters.blame.KeepsLayers`."""
        network = _read(model, options)
        with converting(model, "OpenVINO"):
            return openvino_layers(network, result, samples)


def _read(model: Path, options: StepOptions) -> Any:
    """The float network, with the batch that was asked for."""
    with loading(model, "ONNX"):
        import openvino

        network = openvino.convert_model(model)
        _fix_batch(network, options.batch)
        return network


def _fix_batch(network: Any, batch: int | None) -> None:
    """Give a free first dimension of every input the size `batch`; None leaves it free."""
    free = [port for port in network.inputs if port.partial_shape and port.partial_shape[0].is_dynamic]
    if batch is not None and free:
        network.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in free})


def _quantised(network: Any, calibration: Calibration, kept: tuple[str, ...]) -> Any:
    """The network in int8 but for the operations `kept`, activations symmetric.

    Halving the weights of the first layer (FIRST_LAYER) keeps most of the accuracy where another program runs the
    model with kernels that saturate in 16 bits; our adapter chooses those that do not. Halving all of them (ENABLE)
    costs more than saturation does.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    names = [port.get_any_name() for port in network.inputs]
    return nncf.quantize(
        network,
        nncf.Dataset(list(feeds_for(calibration, names))),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER if _normalises_layers(network) else None,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=list(kept)),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.FIRST_LAYER),
    )


def _normalises_layers(network: Any) -> bool:
    """Whether it is a transformer, which NNCF treats otherwise, and fails on when it is not told."""
    return any(operation.get_type_name() == "MVN" for operation in network.get_ops())


def _name_by_place(network: Any) -> None:
    """Operations that OpenVINO named by a counter of the process are numbered by their place in the network."""
    for place, operation in enumerate(network.get_ordered_ops()):
        counted = re.fullmatch(r"([A-Za-z]+)_\d+", operation.get_friendly_name())
        if counted and not any(port.get_names() for port in operation.outputs()):  # names of the source stay
            operation.set_friendly_name(f"{counted[1]}_{place}")
