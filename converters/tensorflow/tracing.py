"""Convert a TensorFlow model, traced into one function of fixed shapes, to ONNX and TFLite."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.base import feeds_for
from converters.onnx.cleanup import tidy
from converters.options import ConvertOptions
from converters.tensorflow.op_rewrites import freeze
from converters.tensorflow.recurrent import check_no_loops, check_stateless
from converters.tflite.names import SIGNATURE, output_names, with_names
from runtimes.arrays import Arrays
from runtimes.engine_support.adapter import tensor_spec
from runtimes.shapes import with_shapes

if TYPE_CHECKING:
    from converters.calibration.dataset import Calibration

_LONGEST_SIDE = 2048  # of a picture that is resized; a scale is a quotient of two sides


@dataclass(frozen=True, kw_only=True)
class TracedFunction:
    """A `tf.function` from a list of tensors to a list of tensors, and their names in order.

    stateful: The layers that keep their state from one call to the next, in variables.
    states: For each variable with a state, its input and the output that gives its next value, if it has them.
    """

    function: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    stateful: tuple[str, ...] = ()
    states: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def inline_functions() -> Iterator[None]:
    """Inline the functions that a model calls into the graph while it is traced.

    Keras puts grouped convolutions into separate functions for XLA, which tf2onnx does not support.
    """
    import tensorflow as tf

    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(True)
    try:
        yield
    finally:
        tf.config.run_functions_eagerly(before)


def shapes_to_trace(
    inputs: Mapping[str, tuple[Any, Sequence[int | None]]], batch: int | None, shapes: Sequence[str]
) -> list[tuple[int | None, ...]]:
    """Return the shape of each input {name: (dtype, sizes)}: in `shapes`, with a free batch set to `batch`.

    Sizes that are neither are None, as in TensorFlow. Raises UsageError for shapes that do not fit the inputs.
    """
    specs = [tensor_spec(name, dtype, sizes) for name, (dtype, sizes) in inputs.items()]
    return [
        tuple((batch if axis == 0 else None) if isinstance(size, str) else size for axis, size in enumerate(spec.shape))
        for spec in with_shapes(specs, shapes)
    ]


def to_onnx(traced: TracedFunction, opset: int) -> Any:
    """Convert with tf2onnx to an `onnx.ModelProto` with the source's output names and the same bytes on every run."""
    import tf2onnx

    function = traced.function
    signature, rewriters = function.input_signature, [_ignore_signs_of_zeros]
    proto, _ = tf2onnx.convert.from_function(function, signature, opset=opset, custom_rewriter=rewriters)
    _hold_captured(proto, function.get_concrete_function())
    _replace_erfc(proto)
    _round_scales_up(proto)
    _rename_outputs(proto, traced.outputs)
    tidy(proto)
    return proto


def to_tflite(traced: TracedFunction, options: ConvertOptions, calibration: Calibration | None) -> bytes:
    """Convert with TensorFlow's TFLite converter. `io_dtype` defaults to uint8, the type of image pixels."""
    function = traced.function.get_concrete_function()
    if options.precision == "int8":
        check_stateless(traced.stateful)
        check_no_loops(function)
    with tempfile.TemporaryDirectory() as folder:
        converter = _stateful_converter(traced, Path(folder)) if traced.stateful else _converter(function)
        _set_precision(converter, options)
        if options.precision == "int8" and calibration is not None:
            _set_int8(converter, options, traced.inputs, calibration)
        content = _convert_and_keep(converter, options.keep, traced.outputs) if options.keep else converter.convert()
    return with_names(content, traced.inputs, traced.outputs)


def _hold_captured(proto: Any, function: Any) -> None:
    """Turn the inputs that tf2onnx creates for constants captured by the function back into initializers.

    Keras' Normalization captures its mean and variance that way.
    """
    from onnx import numpy_helper

    captured = {inner.name: outer for outer, inner in function.graph.captures if outer.dtype.is_numpy_compatible}
    for value in list(proto.graph.input):
        if value.name in captured:
            proto.graph.initializer.append(numpy_helper.from_array(captured[value.name].numpy(), value.name))
            proto.graph.input.remove(value)


def _ignore_signs_of_zeros(graph: Any, operators: Sequence[Any]) -> Any:
    """Let the ArgMax of Keras 3 take -0.0 for 0.0, as ONNX does: tf2onnx has no operators on bits (see `op_rewrites`).

    Takes a graph of tf2onnx and its operators; returns the operators.
    """
    for node in operators:
        condition = node.inputs[0] if node.type == "SelectV2" else None
        parts = condition.inputs if condition is not None and condition.type == "LogicalAnd" else ()
        if any(one.inputs and one.inputs[0].type == "BitwiseAnd" for one in parts):
            graph.replace_all_inputs(node.output[0], node.input[2])
    return graph.get_nodes()


def _round_scales_up(proto: Any) -> None:
    """Round the scales of Resize up where float32 rounded a quotient of sizes down, which loses a row.

    7 / 10 becomes 0.69999999, and 10 rows times that are 6: the size is the floor of the product.
    """
    from onnx import numpy_helper

    scales = {node.input[2] for node in proto.graph.node if node.op_type == "Resize" and len(node.input) > 2}
    for tensor in proto.graph.initializer:
        if tensor.name in scales:
            values = [_at_least_quotient(one) for one in numpy_helper.to_array(tensor)]
            tensor.CopyFrom(numpy_helper.from_array(np.array(values, np.float32), tensor.name))


def _at_least_quotient(scale: np.float32) -> np.float32:
    given = Fraction(float(scale))
    is_below = given < given.limit_denominator(_LONGEST_SIDE)
    return np.nextafter(scale, np.float32(np.inf)) if is_below else scale


def _replace_erfc(proto: Any) -> None:
    """Compute erfc(x), used by Keras' exact GELU, as 1 - erf(x): ONNX has no Erfc, but tf2onnx leaves it in."""
    from onnx import helper, numpy_helper

    for place, node in reversed(list(enumerate(proto.graph.node))):
        if node.op_type == "Erfc":
            erf, one = f"{node.output[0]}:erf", f"{node.output[0]}:one"
            proto.graph.initializer.append(numpy_helper.from_array(np.ones((), np.float32), one))
            proto.graph.node.insert(place + 1, helper.make_node("Sub", [one, erf], node.output, f"{node.name}:sub"))
            node.op_type, node.output[0] = "Erf", erf


def _rename_outputs(proto: Any, names: Sequence[str]) -> None:
    """Rename the outputs, which TensorFlow calls Identity, to the source's names."""
    inner = {name for node in proto.graph.node for name in (*node.input, *node.output)}
    renamed = {output.name: name for output, name in zip(proto.graph.output, names, strict=True) if name not in inner}
    for value in proto.graph.output:
        value.name = renamed.get(value.name, value.name)
    for node in proto.graph.node:
        for tensors in (node.input, node.output):
            tensors[:] = [renamed.get(name, name) for name in tensors]


def _converter(function: Any) -> Any:
    import tensorflow as tf

    # Variables left in the graph would be uninitialized during calibration.
    return tf.lite.TFLiteConverter.from_concrete_functions([freeze(function)])


def _stateful_converter(traced: TracedFunction, folder: Path) -> Any:
    """Return a converter that keeps variables: only a SavedModel holds what initializes them in the result."""
    import keras
    import tensorflow as tf

    def named(*tensors: Any) -> Any:
        return dict(zip(traced.outputs, traced.function(list(tensors)), strict=True))

    archive = keras.export.ExportArchive()
    archive.track(traced.function.source)
    archive.add_endpoint(SIGNATURE, named, input_signature=traced.function.input_signature[0])
    archive.write_out(str(folder), verbose=False)
    return tf.lite.TFLiteConverter.from_saved_model(str(folder))


def _set_precision(converter: Any, options: ConvertOptions) -> None:
    import tensorflow as tf

    if options.precision != "fp32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.precision == "fp16":
        converter.target_spec.supported_types = [tf.float16]


def _set_int8(converter: Any, options: ConvertOptions, names: Sequence[str], calibration: Calibration) -> None:
    import tensorflow as tf

    io_dtype = tf.dtypes.as_dtype(options.io_dtype or "uint8")

    converter.representative_dataset = lambda: (list(feed.values()) for feed in _order_samples(calibration, names))
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = io_dtype
    converter.inference_output_type = tf.float32 if options.float_outputs else io_dtype
    # Runtimes of the Edge TPU compiler's age read only the first scale of a dense layer, and give wrong results.
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True


def _order_samples(calibration: Calibration, names: Sequence[str]) -> Iterator[Arrays]:
    return ({name: feed[name] for name in names} for feed in feeds_for(calibration, names))


def _convert_and_keep(converter: Any, layers: tuple[str, ...], outputs: Sequence[str]) -> bytes:
    """Return the int8 model, keeping the layers that write the tensors `layers` in float32.

    `outputs` are the names that the outputs get after the conversion, which `layers` uses. This does the same as
    `tf.lite.experimental.QuantizationDebugger`, which does not support the settings of `_set_int8`.
    """
    from tensorflow.lite.python.convert import mlir_quantize

    converter._experimental_calibrate_only = True
    calibrated = converter.convert()
    own = dict(zip(outputs, output_names(calibrated), strict=True))
    content: bytes = mlir_quantize(
        calibrated,
        input_data_type=converter.inference_input_type,
        output_data_type=converter.inference_output_type,
        denylisted_nodes=[own.get(name, name) for name in layers],
        disable_per_channel_for_dense_layers=True,
    )
    return content
