"""ONNX → OpenVINO IR: fp32, fp16 weights, or int8 by NNCF."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import ConversionOutput, Converter, Requirement, feeds_for
from converters.library_calls import converting, loading, no_telemetry
from converters.onnx.quantized_graph import is_quantized
from converters.options import ConvertOptions

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration
    from converters.layer_errors import LayerError

_NNCF = Requirement("nncf", "table")

_RECURRENT = re.compile(r"(LSTM|GRU|RNN)(Sequence|Cell)")
# OpenVINO operations that do not exist in ONNX. Fusing a batch normalization leaves a convolution whose output keeps
# the source's name but which itself is called `Multiply_` plus a number, which is not a name of the source.
_NOT_ONNX = frozenset({"Convolution", "Divide", "GroupConvolution", "Multiply", "Subtract"})


class OnnxToOpenvino(Converter):
    """Writes `<model name>.xml`, with the weights in `<model name>.bin`.

    For a device that needs an old release (the Movidius stick), `converters.openvino.movidius` does the conversion.
    """

    source = "onnx"
    target = "openvino"
    precisions: tuple[str, ...] = ("fp32", "fp16", "int8")
    requires = (Requirement("openvino"),)
    keeps_layers = True
    reads_quantized = True

    def environments(self, options: ConvertOptions) -> tuple[str, ...]:
        """The environment of the device's release, if it needs an old one."""
        from converters.openvino.movidius import ENVIRONMENT

        return () if options.release is None else (ENVIRONMENT,)

    def convert(
        self, model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None
    ) -> ConversionOutput:
        """Write the IR; see `converters.base.Converter`."""
        if options.precision == "int8" and options.release is None and self._has_integer_operators(model):
            return self._convert_quantized(model, out, options)
        self.check(options, calibration)
        if options.release is not None:
            from converters.openvino.movidius import convert_for_myriad

            return convert_for_myriad(model, out, options, calibration)
        no_telemetry()
        if options.precision == "fp16":
            return _to_float16(model, out, options, calibration)
        network = read_network(model, options)
        if options.precision == "int8" and calibration is not None:
            _NNCF.check(f"{self.id} int8")
            with converting(model, "NNCF"):
                network = _quantize(network, calibration, options.keep)
        path = save_network(network, out / f"{model.stem}.xml", in_float16=False, source=model.suffix)
        return ConversionOutput(model=path)

    def keeps_free_sizes(self, options: ConvertOptions) -> bool:
        """Yes, but for a Movidius stick, whose plugin takes fixed sizes."""
        return options.release is None

    def _has_integer_operators(self, model: Path) -> bool:
        """Return whether the graph is quantized in a way that OpenVINO reads only when it is rewritten."""
        return is_quantized(model)

    def _convert_quantized(self, model: Path, out: Path, options: ConvertOptions) -> ConversionOutput:
        """Convert a graph that is int8 already, with its own scales."""
        from converters.onnx.float16_range import save_model
        from converters.onnx.quantized_graph import integer_operators_as_qdq

        self.check_libraries()
        no_telemetry()
        with converting(model, "ONNX"):
            proto = integer_operators_as_qdq(_proto(model))
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            network = read_network(save_model(proto, Path(folder) / model.name), options)
            return ConversionOutput(model=save_network(network, out / f"{model.stem}.xml", in_float16=False))

    def layer_errors(
        self, model: Path, result: Path, options: ConvertOptions, samples: Calibration
    ) -> Sequence[LayerError]:
        """See `converters.base.Converter`."""
        from converters.openvino.layer_errors import openvino_layers

        network = read_network(model, options)
        with converting(model, "OpenVINO"):
            return openvino_layers(network, result, samples)


def _to_float16(model: Path, out: Path, options: ConvertOptions, calibration: Calibration | None) -> ConversionOutput:
    """Store weights in fp16, and check everything that a GPU or NPU computes in fp16 against the range of fp16."""
    from converters.onnx.float16_fit import fit_to_float16
    from converters.onnx.float16_range import save_model

    proto = _proto(model)
    fit = fit_to_float16(model, proto, calibration, sums_in_float32=True)
    fit.check(model)
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        given = save_model(proto, Path(folder) / model.name) if fit.clamped else model
        path = save_network(read_network(given, options), out / f"{model.stem}.xml", in_float16=True)
    device_model = fit.device_model(options.scratch, f"{model.stem}.onnx")
    return ConversionOutput(model=path, facts=fit.facts, notes=fit.notes, device_model=device_model)


def _proto(model: Path) -> Any:
    with loading(model, "ONNX"):
        import onnx

        return onnx.load(model)


def save_network(network: Any, path: Path, in_float16: bool, source: str = ".onnx") -> Path:
    """Write the network to `path` and its weights next to it. `source` is the suffix of the file it was read from."""
    with converting(path.name, "OpenVINO"):
        import openvino

        _name_by_place(network, source)
        openvino.save_model(network, path, compress_to_fp16=in_float16)
    return path


def read_network(model: Path, options: ConvertOptions) -> Any:
    """Read the float network and set the requested batch."""
    with loading(model, "TFLite" if model.suffix == ".tflite" else "ONNX"):
        network, own = _load(model), None
        if model.suffix == ".onnx":
            import onnx

            graph = onnx.load(model, load_external_data=False).graph
            own = {name for node in graph.node for name in (node.name, *node.output)}
            _keep_names(network, graph)
            _keep_ranks(network, graph)
        _fix_batch(network, options.batch)
        _name_by_place(network, model.suffix, own)  # before NNCF, which derives names from these
        return network


def _load(model: Path) -> Any:
    """Return the network, as OpenVINO's converter simplifies it; in another way where it fails on an intact model."""
    import openvino

    from converters.onnx.cleanup import copy_unchanged_states
    from converters.onnx.float16_range import save_model

    try:
        return openvino.convert_model(model)
    except Exception:
        if model.suffix == ".onnx" and copy_unchanged_states(proto := _proto(model)):
            with tempfile.TemporaryDirectory(prefix="edge-") as folder:
                return openvino.convert_model(save_model(proto, Path(folder) / model.name))
        # Its transformations fail on some graphs that are intact ("to_shape was called on a dynamic shape").
        return openvino.Core().read_model(model)


def _keep_names(network: Any, graph: Any) -> None:
    """Leave inputs the names that they have in the source, without that of a Cast or Identity that is folded away."""
    declared = {one.name for one in (*graph.input, *graph.output)}
    for port in network.inputs:
        port.get_tensor().set_names((port.get_names() & declared) or port.get_names())


def _keep_ranks(network: Any, graph: Any) -> None:
    """Give outputs back the axes that they have in the source: a real DFT of OpenVINO keeps one that it should drop."""
    import numpy as np
    from openvino import opset13 as operations

    declared = {one.name: [dim.dim_value for dim in one.type.tensor_type.shape.dim] for one in graph.output}
    for result in network.get_results():
        source, port = result.input_value(0), result.output(0)
        name = next((one for one in port.get_names() if one in declared), "")
        shape = source.get_partial_shape()
        if not name or shape.is_dynamic or not all(declared[name]) or len(shape) == len(declared[name]):
            continue
        if math.prod(shape.to_shape()) == math.prod(declared[name]):
            turned = operations.reshape(
                source, operations.constant(np.array(declared[name], np.int64)), special_zero=False
            )
            names = source.get_names()
            source.get_tensor().set_names(set())
            result.input(0).replace_source_output(turned.output(0))
            turned.output(0).get_tensor().set_names(names)


def _fix_batch(network: Any, batch: int | None) -> None:
    """Set a free first dimension of every input to `batch`; None leaves it free."""
    free = [port for port in network.inputs if port.partial_shape and port.partial_shape[0].is_dynamic]
    if batch is not None and free:
        network.reshape({port: [batch, *list(port.partial_shape)[1:]] for port in free})


def _quantize(network: Any, calibration: Calibration, kept: tuple[str, ...]) -> Any:
    """Quantize to int8 with symmetric activations, except for the operations `kept`.

    Halving the weight range of the first layer (FIRST_LAYER) keeps most of the accuracy in programs whose kernels
    saturate in 16 bits; our adapter selects kernels that do not. Halving all of them (ENABLE) costs more accuracy than
    saturation does.
    """
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix

    names = [port.get_any_name() for port in network.inputs]
    return nncf.quantize(
        network,
        nncf.Dataset(list(feeds_for(calibration, names))),
        preset=nncf.QuantizationPreset.PERFORMANCE,
        model_type=nncf.ModelType.TRANSFORMER if _normalizes_layers(network) else None,
        subset_size=len(calibration),
        ignored_scope=nncf.IgnoredScope(names=[*kept, *_recurrent_layers(network)]),
        advanced_parameters=AdvancedQuantizationParameters(overflow_fix=OverflowFix.FIRST_LAYER),
    )


def _recurrent_layers(network: Any) -> list[str]:
    """Return the names of recurrent layers, which stay in float.

    NNCF quantizes an LSTM, and the CPU plugin's int8 transformations then scale its states down to nearly 0
    unless LP_TRANSFORMS_MODE is NO (OpenVINO 2026.4.1, NNCF 3; 20 dB with it, -1 dB without).
    """
    return [one.get_friendly_name() for one in network.get_ops() if _RECURRENT.fullmatch(one.get_type_name())]


def _normalizes_layers(network: Any) -> bool:
    """Return whether the network is a transformer: NNCF fails on one unless its model type says so."""
    return any(operation.get_type_name() == "MVN" for operation in network.get_ops())


def _name_by_place(network: Any, source: str, own: Collection[str] | None = None) -> None:
    """Rename operations that OpenVINO named by a process-wide counter to their position in the network.

    `source` is the suffix of the source. In a TFLite file, only tensors have names, not operations. `own` are the names
    in the source, if they are known.
    """
    for place, operation in enumerate(network.get_ordered_ops()):
        counted = re.fullmatch(r"([A-Za-z]+)_\d+", operation.get_friendly_name())
        if counted is None:
            continue
        from_source = any(port.get_names() for port in operation.outputs())
        is_own = counted[1] not in _NOT_ONNX and source != ".tflite" if own is None else counted[0] in own
        if not (from_source and is_own):
            operation.set_friendly_name(f"{counted[1]}_{place}")
