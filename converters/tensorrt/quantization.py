"""Quantize for TensorRT: scales in the graph (QDQ, explicit), or a calibration cache next to a float graph (implicit).

TensorRT computes symmetrically: all zero points are 0. Pairs of QuantizeLinear and DequantizeLinear are placed before
convolutions, matrix products and additions; TensorRT fuses the operators in between. Pairs between a convolution and
the activation that clips it would cost accuracy: MobileNetV2 then agrees with its source on 85 % of the images, without
them on 97 %. Biases stay float32, since TensorRT does not support an int32 DequantizeLinear.
https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import feeds_for
from converters.tensorrt.releases import Release

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

_MAX_INT8 = 127
_QUANTIZED = ["Conv", "ConvTranspose", "MatMul", "Gemm", "Add"]


def input_names(proto: Any) -> list[str]:
    """Return the names of a model's inputs, without the constants that old files list among them."""
    constants = {tensor.name for tensor in proto.graph.initializer}
    return [value.name for value in proto.graph.input if value.name not in constants]


def prepare_for_quantizer(model: Path, folder: Path) -> Path:
    """Write the model with inferred shapes and folded BatchNorm into `folder`, as the quantizer needs it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    place = folder / "prepared.onnx"
    quant_pre_process(model, place, skip_symbolic_shape=True)
    return place


def with_scales(prepared: Path, out: Path, calibration: Calibration, names: list[str]) -> Any:
    """Return the model with QDQ pairs as an `onnx.ModelProto`.

    `names` are the names of its inputs; `out` is a file to write to.
    """
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
        op_types_to_quantize=_QUANTIZED,
        extra_options={
            "ActivationSymmetric": True,
            "WeightSymmetric": True,
            "AddQDQPairToWeight": True,
            "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": _QUANTIZED,
        },
    )
    proto = onnx.load(out)
    kept = [entry for entry in proto.opset_import if entry.domain in {node.domain for node in proto.graph.node}]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
    return proto


def largest_values(model: Path, scratch: Path, calibration: Calibration, names: list[str]) -> dict[str, float]:
    """Return the largest absolute value of every float tensor over the calibration samples, by name."""
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    augmented = scratch / "augmented.onnx"
    calibrator = create_calibrator(
        model, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
    )
    calibrator.collect_data(_reader(calibration, names))
    data = calibrator.compute_data().data
    return {name: float(max(abs(low), abs(high))) for name, (low, high) in _ranges(data.items())}


def cache_text(largest: Mapping[str, float], release: Release) -> str:
    """Build a calibration cache in TensorRT's own format.

    Each line contains the name of a tensor and its scale, max |x| ÷ 127, as a big-endian float32 in hexadecimal.
    """
    lines = [f"TRT-{release.number}-EntropyCalibration2"]
    for name, value in sorted(largest.items()):
        lines.append(f"{name}: {struct.pack('>f', value / _MAX_INT8).hex()}")
    return "\n".join(lines) + "\n"


def _ranges(items: Iterable[tuple[str, Any]]) -> Iterable[tuple[str, tuple[float, float]]]:
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
