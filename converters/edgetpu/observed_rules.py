"""Undocumented rules of the Edge TPU compiler, derived by comparing models with their compiled files.

Each rule names the models on which it was observed. The rules are as general as that evidence allows, and may be wrong
elsewhere.
"""

from __future__ import annotations

from converters.check.report import CompatibilityIssue
from converters.tflite.op import TfliteOp, elements, is_constant, sizes

# Conversions of the inputs stay on the CPU before the accelerated part and do not end it. Seen on MoveNet
# (CAST, then QUANTIZE) and on every model with float inputs (QUANTIZE).
LEADING_CONVERSIONS = frozenset({"CAST", "QUANTIZE"})

# The table says "Depending on input/output size, this operation might not be mapped to avoid loss in precision",
# without a number. Seen mapped: factors 1 and 2 (DeepLab, U-Net, MoveNet, EfficientDet) and up to 4 (BiSeNet V2,
# https://github.com/google-coral/edgetpu/issues/377). Seen on the CPU: 15.5 (33 → 513) and 33 (1 → 33), in DeepLab.
# The limit is between 4 and 15.5.
_MAX_ENLARGEMENT = 8

# The table says "Certain reshapes might not be mapped for large tensor sizes", without a number. Of YOLOv5s' three
# heads at 224×224, the largest reshape and transpose (784×3×85 = 199,920 bytes) stay on the CPU and the smaller ones
# (49,980 bytes) do not (https://github.com/google-coral/edgetpu/issues/512 has the logs). That is just above the 192
# KiB of each tile's activation memory. But larger ones were mapped elsewhere, so this is only a warning.
_DOUBTED = frozenset({"RESHAPE", "TRANSPOSE", "CONCATENATION"})
_DOUBTED_BYTES = 192 * 1024


def modest_resize(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that a resize does not enlarge by too large a factor."""
    before, after = sizes(op.input(0)), sizes(op.outputs[0])
    if len(before) != 4 or len(after) != 4:
        return None
    factor = max(new / max(old, 1) for old, new in zip(before[1:3], after[1:3], strict=True))
    if factor <= _MAX_ENLARGEMENT:
        return None
    what = f"{before[1]}×{before[2]} to {after[1]}×{after[2]}"
    return CompatibilityIssue(
        f"it resizes {what}; large factors are not mapped, to avoid loss of precision (seen from 15.5)",
        "resize in steps of 2 to 4, tile a 1×1 map instead, or resize on the host",
    )


def state_types(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that an LSTM's state is quantized: 16 bits for the cell state, as in TFLite, and 8 bits otherwise.

    Seen mapped with an int8 output state and an int16 cell state (a Keras LSTM, quantized after training).
    """
    for tensor in op.inputs:
        if tensor.is_variable and tensor.spec.dtype not in ("int8", "uint8", "int16"):
            fix = "quantize the whole model to int8, with calibration data"
            return CompatibilityIssue(f"its state is {tensor.spec.dtype}", fix)
    return None


def plain_tile(op: TfliteOp) -> CompatibilityIssue | None:
    """Require that TILE has constant multiples and does not repeat the batch.

    TILE is undocumented, but was seen mapped, repeating a 1×1 map in x and y (DeepLab slim). Repeating the batch
    cannot be mapped, as the batch of every tensor must be 1.
    """
    multiples = op.integers(1)
    if multiples is None or not is_constant(op.input(1)):
        return CompatibilityIssue("how often it repeats is computed at run time", "make it a constant of the model")
    if len(multiples) > 3 and any(times != 1 for times in multiples[:-3]):
        return CompatibilityIssue("it repeats the batch", "repeat height, width or channels only")
    return None


def doubt(op: TfliteOp) -> str | None:
    """Return a reason why the compiler may leave a supported operator on the CPU; None if there is none."""
    size = max(map(elements, op.outputs), default=0)
    if op.type in _DOUBTED and size > _DOUBTED_BYTES:
        return f"{op.type} of {size:,} bytes: the compiler has left operations of this size on the CPU"
    return None


OPERATIONS = {
    "LSTM": (state_types,),
    "RESIZE_BILINEAR": (modest_resize,),
    "RESIZE_NEAREST_NEIGHBOR": (modest_resize,),
    "TILE": (plain_tile,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (state_types,),
}
