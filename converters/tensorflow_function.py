"""What the steps from TensorFlow's formats share: a model as one function of fixed shapes, and the ways on from it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.onnx_tidy import tidy
from converters.steps import StepOptions, feeds_for
from runtimes.arrays import Arrays
from runtimes.errors import InputError

if TYPE_CHECKING:
    from converters.calibration import Calibration


@dataclass(frozen=True)
class Traced:
    """A `tf.function` from a list of tensors to a list of tensors, and their names in order."""

    function: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@contextmanager
def inlined() -> Iterator[None]:
    """While a model is traced: functions that it calls become part of the graph.

    Keras leaves grouped convolutions to XLA, in functions of their own, which tf2onnx does not read.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def fixed_shape(name: str, sizes: Sequence[int | None], path: Path, batch: int | None) -> tuple[int | None, ...]:
    """The shape with its batch set to `batch` (None: any); InputError where another dimension is free."""
    shape = tuple(sizes)
    if None in shape[1:]:
        raise InputError(
            f"{path}: input '{name}' has the free shape {list(shape)}",
            "build the model with fixed sizes; only the batch may be free",
        )
    return (batch, *shape[1:])


def to_onnx(traced: Traced, opset: int) -> Any:
    """The `onnx.ModelProto` that tf2onnx makes, its outputs named as the source's. The same bytes on every run."""
    import tf2onnx

    function = traced.function
    proto, _ = tf2onnx.convert.from_function(function, input_signature=function.input_signature, opset=opset)
    _hold_captured(proto, function.get_concrete_function())
    _replace_erfc(proto)
    _rename_outputs(proto, traced.outputs)
    tidy(proto)
    return proto


def to_tflite(traced: Traced, options: StepOptions, calibration: Calibration | None) -> bytes:
    """The model that TensorFlow's TFLite converter makes; `io_dtype` is uint8, as pictures are, unless it is said."""
    converter = _converter(traced.function.get_concrete_function())
    _set_precision(converter, options)
    if options.precision == "int8" and calibration is not None:
        _set_int8(converter, options.io_dtype or "uint8", traced.inputs, calibration)
    content: bytes = _kept(converter, options.keep) if options.keep else converter.convert()
    return content


def _hold_captured(proto: Any, function: Any) -> None:
    """Put the constants that the function captures into the model: tf2onnx makes inputs of them.

    Keras' Normalization captures its mean and variance that way.
    """
    from onnx import numpy_helper

    captured = {inner.name: outer for outer, inner in function.graph.captures if outer.dtype.is_numpy_compatible}
    for value in list(proto.graph.input):
        if value.name in captured:
            proto.graph.initializer.append(numpy_helper.from_array(captured[value.name].numpy(), value.name))
            proto.graph.input.remove(value)


def _replace_erfc(proto: Any) -> None:
    """Compute erfc(x), Keras' exact GELU, as 1 - erf(x): ONNX has no Erfc, and tf2onnx passes it on as it is."""
    from onnx import helper, numpy_helper

    for place, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "Erfc":
            erf, one = f"{node.output[0]}:erf", f"{node.output[0]}:one"
            proto.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), one))
            proto.graph.node.insert(place + 1, helper.make_node("Sub", [one, erf], node.output, f"{node.name}:sub"))
            node.op_type, node.output[0] = "Erf", erf


def _rename_outputs(proto: Any, names: Sequence[str]) -> None:
    """TensorFlow calls its outputs Identity; the source's names tell more."""
    inner = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    renamed = {output.name: name for output, name in zip(proto.graph.output, names, strict=True) if name not in inner}
    for value in proto.graph.output:
        value.name = renamed.get(value.name, value.name)
    for node in proto.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]


def _converter(function: Any) -> Any:
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    # Variables left in the graph are read as uninitialised while it is calibrated.
    frozen = convert_variables_to_constants_v2(function)
    return tf.lite.TFLiteConverter.from_concrete_functions([frozen])


def _set_precision(converter: Any, options: StepOptions) -> None:
    import tensorflow as tf

    if options.precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]


def _set_int8(converter: Any, io_dtype: str, names: Sequence[str], calibration: Calibration) -> None:
    import tensorflow as tf

    converter.representative_dataset = lambda: (list(feed.values()) for feed in _ordered(calibration, names))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.dtypes.as_dtype(io_dtype)
    # Runtimes of the Edge TPU compiler's age read only the first scale of a dense layer, and answer wrong.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _ordered(calibration: Calibration, names: Sequence[str]) -> Iterator[Arrays]:
    return ({name: feed[name] for name in names} for feed in feeds_for(calibration, names))


def _kept(converter: Any, layers: tuple[str, ...]) -> bytes:
    """The int8 model with the layers that write the tensors `layers` in float32.

    As `tf.lite.experimental.QuantizationDebugger` makes it, which cannot take the settings of `_set_int8`.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    converter._experimental_calibrate_only = True
    content: bytes = mlir_quantize(
        converter.convert(),
        input_data_type=converter.inference_input_type,
        output_data_type=converter.inference_output_type,
        denylisted_nodes=list(layers),
        disable_per_channel_for_dense_layers=True,
    )
    return content
