"""int8 for TensorRT: scales in the graph (QDQ, explicit), or a calibration cache beside a float graph (implicit).

TensorRT computes symmetrically: all zero points are 0. Pairs of QuantizeLinear and DequantizeLinear stand before
convolutions, matrix products and additions; TensorRT fuses what lies between. Behind a convolution, ahead of the
activation that clips it, they would cost accuracy: MobileNetV2 then agrees with its source on 85 % of the pictures,
without them on 97 %. Biases stay float32, since TensorRT knows no int32 DequantizeLinear.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.steps import feeds_for
from converters.tensorrt.releases import Release

if TYPE_CHECKING:
    from converters.calibration import Calibration

_LARGEST_INT8 = 127
_QUANTISED = ["Conv", "ConvTranspose", "MatMul", "Gemm", "Add"]


def input_names(proto: Any) -> list[str]:
    """The names of a model's inputs; old files list the constants among them."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [value.name for value in proto.graph.input if value.name not in constants]


def prepared(model: Path, folder: Path) -> Path:
    """The model with shapes inferred and BatchNorm folded, in `folder`, as the quantiser wants it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    place = folder / "prepared.onnx"
    quant_pre_process(model, place, skip_symbolic_shape=True)
    return place


def with_scales(prepared: Path, out: Path, calibration: Calibration, names: list[str]) -> Any:
    """The model with QDQ pairs, as an `onnx.ModelProto`; `names` are those of its inputs, `out` a file to write."""
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    quantize_static(
        prepared,
        out,
        _reader(calibration, names),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        op_types_to_quantize=_QUANTISED,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _QUANTISED,
        },
    )
    proto = onnx.load(out)
    kept = [entry for entry in proto.opset_import if entry.domain in {node.domain for node in proto.graph.node}]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    return proto


def largest_values(model: Path, scratch: Path, calibration: Calibration, names: list[str]) -> dict[str, float]:
    """The largest absolute value of every float tensor over the calibration samples, by name."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    augmented = scratch / "augmented.onnx"
    calibrator = create_calibrator(
        model, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
    )
    calibrator.collect_data(_reader(calibration, names))
    found = calibrator.compute_data().data
    return {name: float(max(abs(low), abs(high))) for name, (low, high) in _ends(found.items())}


def cache_text(largest: Mapping[str, float], release: Release) -> str:
    """A calibration cache in TensorRT's own format.

    A line names a tensor, and its scale, max |x| ÷ 127, as the hexadecimal digits of a big-endian float32.
    """
    lines = [f"TRT-{release.number}-EntropyCalibration2"]
    for name, value in sorted(largest.items()):
        lines.append(f"{name}: {struct.pack('>f', value / _LARGEST_INT8).hex()}")
    return "\n".join(lines) + "\n"


def _ends(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, tuple[float, float]]]:
    for name, data in items:
        low, high = data.range_value
        yield name, (float(low.min()), float(high.max()))


def _reader(calibration: Calibration, names: list[str]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            self._feeds = feeds_for(calibration, names)

        def get_next(self) -> Any:
            return next(self._feeds, None)

    return Reader()
