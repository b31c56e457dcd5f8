"""ONNX fp32 → ONNX int8 (QDQ) by ONNX Runtime's static quantisation."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from converters.layers_onnx import onnx_layers
from converters.onnx_tidy import opset_of
from converters.quiet import converting, loading
from converters.steps import StepOptions, check_options, feeds_for
from runtimes.arrays import Arrays
from runtimes.errors import UsageError

if TYPE_CHECKING:
    from converters.blame import Layer
    from converters.calibration import Calibration

_OLDEST_OPSET = 13  # the first whose QuantizeLinear has an axis


class Step:
    """Weights int8 per channel, activations uint8; inputs and outputs stay float32."""

    source = "onnx"
    target = "onnx"
    precisions = ("int8",)
    requires = ("onnxruntime", "onnx")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.onnx`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        assert calibration is not None
        names = _checked(model, options)
        path = out / f"{model.stem}.onnx"
        with converting(model, "ONNX Runtime's quantiser"), tempfile.TemporaryDirectory() as folder:
            prepared = _prepared(model, Path(folder))
            _quantise(prepared, path, calibration, names, _named(prepared, options.keep))
            _drop_unused_domains(path)
        return path

    def layer_errors(self, model: Path, result: Path, _options: StepOptions, samples: Calibration) -> list[Layer]:
        """See `converters.blame.KeepsLayers`."""
        with converting(model, "ONNX Runtime"), tempfile.TemporaryDirectory() as folder:
            return onnx_layers(_prepared(model, Path(folder)), result, samples)


def _checked(model: Path, options: StepOptions) -> list[str]:
    """The names of the model's inputs; UsageError when it has another opset than the one that was asked for."""
    with loading(model, "ONNX"):
        import onnx

        source = onnx.load(model, load_external_data=False)
        found = opset_of(source)
        constants = {tensor.name for tensor in source.graph.initializer}  # old files list them as inputs too
    if options.opset not in (None, found):
        raise UsageError(f"{model} has opset {found}, not {options.opset}", "convert it from its source once more")
    if found < _OLDEST_OPSET:
        hint = f"convert it from its source with opset {_OLDEST_OPSET} or later"
        raise UsageError(f"{model} has opset {found}: int8 per channel needs {_OLDEST_OPSET}", hint)
    return [value.name for value in source.graph.input if value.name not in constants]


def _prepared(model: Path, folder: Path) -> Path:
    """The model with shapes inferred and BatchNorm folded, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = folder / "prepared.onnx"
    quant_pre_process(model, prepared, skip_symbolic_shape=True)
    return prepared


def _named(prepared: Path, layers: tuple[str, ...]) -> list[str]:
    """The names of the nodes that write the tensors `layers`, given to those that have none."""
    if not layers:
        return []
    import onnx

    model = onnx.load(prepared)
    kept = [node for node in model.graph.node if node.output and node.output[0] in layers]
    for node in kept:
        node.name = node.output[0]
    onnx.save(model, prepared)
    return [node.name for node in kept]


def _quantise(model: Path, path: Path, calibration: Calibration, names: list[str], kept: list[str]) -> None:
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            self._feeds = feeds_for(calibration, names)

        def get_next(self) -> Arrays | None:
            return next(self._feeds, None)

    quantize_static(
        model,
        path,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_exclude=kept,
    )


def _drop_unused_domains(path: Path) -> None:
    """ONNX Runtime lists all of its own operator sets; other engines refuse those that they do not know."""
    import onnx

    model = onnx.load(path)
    used = {node.domain for node in model.graph.node}
    kept = [entry for entry in model.opset_import if entry.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    path.write_bytes(model.SerializeToString(deterministic=True))
