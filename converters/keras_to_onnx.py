"""Keras → ONNX through tf2onnx: fp32, the opset that was asked for, the layout of the source (one transpose inside)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.keras_source import load_keras, traced
from converters.onnx_opset import check_opset, wanted_opset
from converters.onnx_tidy import tidy
from converters.quiet import converting
from converters.steps import StepOptions, check_options

if TYPE_CHECKING:
    from converters.calibration import Calibration

# JetPack 5 and later, OpenVINO and ONNX Runtime read it; JetPack 4.6 needs 13.
DEFAULT_OPSET = 17
_OLDEST, _NEWEST = 11, 18  # tf2onnx 1.17 writes no newer one


class Step:
    """Inputs and outputs bear Keras' names; `batch` None leaves the batch free."""

    source = "keras"
    target = "onnx"
    precisions = ("fp32",)
    requires = ("tensorflow", "keras", "tf2onnx", "onnx")

    def convert(self, model: Path, out: Path, options: StepOptions, calibration: Calibration | None) -> Path:
        """Write `<model name>.onnx`; see `converters.steps.Step`."""
        check_options(self, options, calibration)
        opset = wanted_opset(options.opset, DEFAULT_OPSET, _OLDEST, _NEWEST, "tf2onnx")
        source = load_keras(model)
        function = traced(source, model, options.batch)
        with converting(model, "tf2onnx"):
            proto = _convert(function, opset)
            _rename_outputs(proto, list(source.output_names))
            tidy(proto)
        check_opset(proto, opset, "tf2onnx")
        path = out / f"{model.stem}.onnx"
        path.write_bytes(proto.SerializeToString(deterministic=True))
        return path


def _convert(function: Any, opset: int) -> Any:
    import tf2onnx

    proto, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=opset)
    return proto


def _rename_outputs(proto: Any, names: list[str]) -> None:
    """TensorFlow calls its outputs Identity; the source's names tell more."""
    inner = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    renamed = {output.name: name for output, name in zip(proto.graph.output, names, strict=True) if name not in inner}
    for value in proto.graph.output:
        value.name = renamed.get(value.name, value.name)
    for node in proto.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]
