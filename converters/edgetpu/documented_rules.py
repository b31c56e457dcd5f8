"""The documented conditions under which the Edge TPU supports an operator.

Source: the table "Supported operations" of https://coral.ai/docs/edgetpu/models-intro, in its last form (compiler
16, runtime 14), read at
https://developer.axis.com/computer-vision/on-device/system-on-chip/artpec-7/supported-ops/, which is identical.
Rules derived from compiled models are in `observed_rules`.
"""

from __future__ import annotations

from collections.abc import Callable

from converters.check.report import CompatibilityIssue
from converters.tflite.op import TfliteOp, elements, is_constant, sizes
from converters.tflite.reader import Tensor

Condition = Callable[[TfliteOp], CompatibilityIssue | None]

_EIGHT_BIT = ("int8", "uint8")
# The table says 16,000. 16,384 elements were seen mapped: bright_128x128 and seven color_*_128x128 of
# github.com/ricardodeazambuja/LibrEdgeTPU, compiled with version 16.
_MAX_SOFTMAX_SIZE = 16_384
_Z_MULTIPLE = 4
_SOFTMAX_ON_HOST = "end the model before it and compute it on the host"
_QUANTIZE_ALL = "quantize the whole model to int8, with calibration data"
_NO_CHANGE_FITS = "move it behind the accelerated part, or replace it by supported operations"


def eight_bit(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that every computed tensor is quantized to 8 bits."""
    for tensor in (*op.inputs, *op.outputs):
        if not is_constant(tensor) and not tensor.is_variable and tensor.spec.dtype not in _EIGHT_BIT:
            return _wrong_type(op, tensor.spec.dtype)
    return None


def _wrong_type(op: TfliteOp, dtype: str) -> CompatibilityIssue:
    if op.type in ("QUANTIZE", "DEQUANTIZE") and not op.is_at_border:
        what = "converts from" if op.type == "QUANTIZE" else "converts to"
        return CompatibilityIssue(f"it {what} {dtype} between two layers", _QUANTIZE_ALL)
    if op.type == "QUANTIZE":
        return CompatibilityIssue(
            f"it converts from {dtype}", "give the model 8-bit inputs: uint8 or int8 instead of float32"
        )
    if op.type == "DEQUANTIZE":
        return CompatibilityIssue(
            f"it converts to {dtype}", "give the model 8-bit outputs: uint8 or int8 instead of float32"
        )
    if dtype in ("float32", "float16"):
        return CompatibilityIssue(f"it computes in {dtype}", _QUANTIZE_ALL)
    return CompatibilityIssue(f"it works on {dtype}; the Edge TPU supports only int8 and uint8", _NO_CHANGE_FITS)


def fixed_sizes(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that every size is known in advance. (A free input size makes the compiler refuse the whole model.)"""
    if any(isinstance(size, str) for tensor in (*op.inputs, *op.outputs) for size in tensor.spec.shape):
        return CompatibilityIssue("the size of a tensor is known only at run time", "give every layer a fixed size")
    return None


def three_dimensions(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that only the three innermost dimensions of a computed tensor exceed 1, since the batch is 1."""
    for tensor in (*op.inputs, *op.outputs):
        if not is_constant(tensor) and any(size > 1 for size in sizes(tensor)[:-3]):
            shape = "×".join(map(str, sizes(tensor)))
            reason = f"a tensor of {shape}: only its three innermost dimensions may be larger than 1"
            fix = (
                "convert with batch 1"
                if len(sizes(tensor)) == 4
                else "reshape to at most three dimensions other than 1"
            )
            return CompatibilityIssue(reason, fix)
    return None


def constant_inputs(*places: int) -> Condition:
    """Require that the inputs at these indices (weights, biases, axes, shapes) are constants."""

    def condition(op: TfliteOp) -> CompatibilityIssue | None:
        if all(is_constant(op.input(place)) for place in places):
            return None
        return CompatibilityIssue("a weight, shape or axis is computed at run time", "make it a constant of the model")

    return condition


def no_fused_activation(field: int) -> Condition:
    """Require that the operator has no fused activation, which is field `field` of its options."""

    def condition(op: TfliteOp) -> CompatibilityIssue | None:
        if op.option(field, "b") == 0:
            return None
        return CompatibilityIssue(
            "an activation is fused into it", "convert with the activation as a separate operation"
        )

    return condition


def same_dilation(width_field: int) -> Condition:
    """Require the same dilation in x and y, which are two neighboring fields of the options.

    A kernel that is 1 wide or high has no dilation in that direction, whatever its options say.
    """

    def condition(op: TfliteOp) -> CompatibilityIssue | None:
        width, height = op.option(width_field, "i", 1), op.option(width_field + 1, "i", 1)
        if width == height or 1 in sizes(op.input(1))[1:3]:
            return None
        return CompatibilityIssue(
            f"its dilation is {width} in x and {height} in y", "use the same dilation in both directions"
        )

    return condition


def zero_padding_only(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that a constant input of a concatenation only pads with zeros: two inputs, the constant one all zeros."""
    constants = [tensor for tensor in op.inputs if is_constant(tensor)]
    if not constants:
        return None
    if len(op.inputs) == 2 and len(constants) == 1 and _all_zeros(constants[0]):
        return None
    return CompatibilityIssue(
        "it joins a constant that is not a padding by zeros", "add the constant after the accelerated part"
    )


def _all_zeros(tensor: Tensor) -> bool:
    zero = tensor.spec.quantization.zero_points[0] if tensor.spec.quantization else 0
    tensor.data.spend(1 + len(tensor.data.view) // 64)
    return set(bytes(tensor.data.view)) <= {zero & 0xFF}


def default_weights_format(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that a fully connected layer has its weights in the default order."""
    if op.option(1, "b") == 0:
        return None
    return CompatibilityIssue("its weights are shuffled", "convert with the default weights format")


def one_dimensional_output(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that only the innermost dimension of the output exceeds 1."""
    if all(size == 1 for size in sizes(op.outputs[0])[:-1]):
        return None
    shape = "×".join(map(str, sizes(op.outputs[0])))
    return CompatibilityIssue(
        f"its output of {shape} has more than one dimension", "apply it to one vector, or use a convolution"
    )


def one_dimensional_softmax(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that the input of a softmax is a vector that is not too long."""
    if any(size > 1 for size in sizes(op.input(0))[:-1]):
        shape = "×".join(map(str, sizes(op.input(0))))
        return CompatibilityIssue(
            f"its input of {shape} is not a single vector", "compute it on the host, after the last operation"
        )
    if elements(op.input(0)) > _MAX_SOFTMAX_SIZE:
        reason = f"{elements(op.input(0)):,} elements: a softmax takes at most {_MAX_SOFTMAX_SIZE:,}"
        return CompatibilityIssue(reason, _SOFTMAX_ON_HOST)
    return None


def no_batch_axes(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that a reduction does not include the batch."""
    if len(sizes(op.input(0))) > 1 and 0 in _axes(op):
        return CompatibilityIssue("it reduces over the batch", "reduce over height, width or channels only")
    return None


def whole_z(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that the innermost dimension is a multiple of 4 if a mean reduces over it."""
    shape = sizes(op.input(0))
    if len(shape) - 1 in _axes(op) and shape[-1] % _Z_MULTIPLE:
        reason = f"it reduces over {shape[-1]} channels, not a multiple of {_Z_MULTIPLE}"
        return CompatibilityIssue(reason, f"use a multiple of {_Z_MULTIPLE} channels")
    return None


def _axes(op: TfliteOp) -> set[int]:
    rank = len(sizes(op.input(0)))
    return {axis % rank for axis in op.integers(1) or ()} if rank else set()


def no_batch_packing(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that PACK does not stack along the batch."""
    rank = len(sizes(op.outputs[0]))
    if rank and op.option(1, "i") % rank == 0:
        return CompatibilityIssue("it stacks along the batch", "stack along another dimension")
    return None


def no_batch_splitting(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that SPLIT does not split the batch, the first of four dimensions."""
    rank = len(sizes(op.input(1)))
    if rank > 3 and any(axis % rank == 0 for axis in op.integers(0) or ()):
        return CompatibilityIssue("it splits the batch", "split height, width or channels only")
    return None


def no_batch_padding(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that PAD does not pad the batch."""
    if len(sizes(op.input(0))) > 1 and any((op.integers(1) or ())[:2]):
        return CompatibilityIssue("it pads the batch", "pad height, width or channels only")
    return None


def one_dimensional_slope(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that PReLU has one slope for each channel."""
    if all(size == 1 for size in sizes(op.input(1))[:-1]):
        return None
    shape = "×".join(map(str, sizes(op.input(1))))
    return CompatibilityIssue(f"its slopes are {shape}, not one for each channel", "use PReLU(shared_axes=[1, 2])")


def plain_strides(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that STRIDED_SLICE has only strides of 1, no ellipsis and no new axis."""
    if any(stride != 1 for stride in op.integers(3) or ()):
        return CompatibilityIssue(
            "it takes only every n-th element", "slice with strides of 1, or use a strided pooling"
        )
    if op.option(2, "i") or op.option(3, "i"):
        return CompatibilityIssue(
            "it slices with an ellipsis or a new axis", "write begin, end and strides for every dimension"
        )
    return None


_FUSED_POOL = no_fused_activation(5)

# Operator → its conditions, in addition to the common ones. Operators that are not listed are not supported.
OPERATIONS: dict[str, tuple[Condition, ...]] = {
    "ADD": (),
    "AVERAGE_POOL_2D": (_FUSED_POOL,),
    "CONCATENATION": (no_fused_activation(1), zero_padding_only),
    "CONV_2D": (constant_inputs(1, 2), same_dilation(4)),
    "DEPTHWISE_CONV_2D": (constant_inputs(1, 2), same_dilation(5)),
    "EXPAND_DIMS": (constant_inputs(1),),
    "FULLY_CONNECTED": (constant_inputs(1, 2), default_weights_format, one_dimensional_output),
    "L2_NORMALIZATION": (),
    "LOGISTIC": (),
    "LSTM": (constant_inputs(*range(1, 18)),),
    "MAXIMUM": (),
    "MAX_POOL_2D": (_FUSED_POOL,),
    "MEAN": (constant_inputs(1), no_batch_axes, whole_z),
    "MINIMUM": (),
    "MUL": (),
    "PACK": (no_batch_packing,),
    "PAD": (constant_inputs(1), no_batch_padding),
    "PRELU": (constant_inputs(1), one_dimensional_slope),
    "QUANTIZE": (),
    "REDUCE_MAX": (constant_inputs(1), no_batch_axes),
    "REDUCE_MIN": (constant_inputs(1), no_batch_axes),
    "RELU": (),
    "RELU6": (),
    "RELU_N1_TO_1": (),
    "RESHAPE": (constant_inputs(1),),
    "RESIZE_BILINEAR": (constant_inputs(1),),
    "RESIZE_NEAREST_NEIGHBOR": (constant_inputs(1),),
    "RSQRT": (),
    "SLICE": (constant_inputs(1, 2),),
    "SOFTMAX": (one_dimensional_softmax,),
    "SPACE_TO_DEPTH": (),
    "SPLIT": (constant_inputs(0), no_batch_splitting),
    "SQUARED_DIFFERENCE": (),
    "SQUEEZE": (),
    "STRIDED_SLICE": (constant_inputs(1, 2, 3), plain_strides),
    "SUB": (),
    "SUM": (constant_inputs(1), no_batch_axes),
    "TANH": (),
    "TRANSPOSE": (constant_inputs(1),),
    "TRANSPOSE_CONV": (constant_inputs(0, 1, 3),),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (constant_inputs(*range(1, 18)),),
}

# Advice for frequent operators that are not supported.
FIXES: dict[str, str] = {
    "ARG_MAX": "end the model before it and take the largest value on the host",
    "ARG_MIN": "end the model before it and take the smallest value on the host",
    "BATCH_MATMUL": "use a fully connected layer with constant weights where one factor is constant",
    "BATCH_TO_SPACE_ND": "convert from dilated convolutions, so that the converter folds it into the convolution",
    "BIDIRECTIONAL_SEQUENCE_LSTM": "use unidirectional LSTM layers",
    "CONV_3D": "use 2-D convolutions",
    "DEPTH_TO_SPACE": "use a transposed convolution or a resize",
    "DIV": "multiply by the reciprocal, as a constant",
    "ELU": "train with ReLU or ReLU6",
    "GATHER": "slice with constant bounds, or look up on the host",
    "GATHER_ND": "slice with constant bounds, or look up on the host",
    "GELU": "train with ReLU or ReLU6",
    "HARD_SWISH": "train with ReLU6 instead",
    "LEAKY_RELU": "use ReLU, or PReLU(shared_axes=[1, 2]) with the same slope for every channel",
    "LOG_SOFTMAX": "end the model before it, or use a softmax",
    "MIRROR_PAD": "pad with zeros",
    "PADV2": "pad with zeros (PAD)",
    "SPACE_TO_BATCH_ND": "convert from dilated convolutions, so that the converter folds it into the convolution",
    "SPLIT_V": "split into equal parts, or slice",
    "UNPACK": "slice instead (STRIDED_SLICE with a shrink axis)",
}


def unsupported(op: TfliteOp) -> CompatibilityIssue:
    """Return why an operator that is not in the table stays on the host, and how to avoid it."""
    if op.operator.is_custom:
        return CompatibilityIssue(
            "custom operators run on the CPU", "keep it as the last operation, or compute it on the host"
        )
    return CompatibilityIssue("the Edge TPU does not support it", FIXES.get(op.type, _NO_CHANGE_FITS))
