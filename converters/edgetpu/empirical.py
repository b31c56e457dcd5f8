"""What the Edge TPU compiler does beyond its documentation, found by comparing models with what it made of them.

Each rule says what it was seen on. They are stated as generally as that evidence allows, and may be wrong elsewhere.
"""

from __future__ import annotations

from converters.check.report import Problem
from converters.check.tflite_op import TfliteOp, elements, is_constant, sizes

# Conversions of the inputs stay on the CPU in front of the accelerated part and do not end it. Seen on MoveNet
# (CAST, then QUANTIZE) and on every model with float inputs (QUANTIZE).
LEADING_CONVERSIONS = frozenset({"CAST", "QUANTIZE"})

# "Depending on input/output size, this operation might not be mapped to avoid loss in precision", says the table,
# without a number. Seen mapped: factors 1 and 2 (DeepLab, U-Net, MoveNet, EfficientDet) and up to 4 (BiSeNet V2,
# https://github.com/google-coral/edgetpu/issues/377). Seen on the CPU: 15.5 (33 → 513) and 33 (1 → 33), in DeepLab.
# The limit lies somewhere between 4 and 15.5.
_LARGEST_ENLARGEMENT = 8

# "Certain reshapes might not be mapped for large tensor sizes", says the table, without a number. Of YOLOv5s' three
# heads at 224×224, the largest reshape and transpose (784×3×85 = 199,920 bytes) stay on the CPU and the smaller ones
# (49,980 bytes) do not (https://github.com/google-coral/edgetpu/issues/512 has the logs). That is just above the 192
# KiB of each tile's activation memory. But larger ones were mapped elsewhere: a doubt, and no verdict.
_DOUBTED = frozenset({"RESHAPE", "TRANSPOSE", "CONCATENATION"})
_DOUBTED_BYTES = 192 * 1024


def modest_resize(op: TfliteOp) -> Problem | None:
    """A resize must not enlarge too much at once."""
    before, after = sizes(op.input(0)), sizes(op.outputs[0])
    if len(before) != 4 or len(after) != 4:
        return None
    factor = max(new / max(old, 1) for old, new in zip(before[1:3], after[1:3], strict=True))
    if factor <= _LARGEST_ENLARGEMENT:
        return None
    what = f"{before[1]}×{before[2]} to {after[1]}×{after[2]}"
    return Problem(
        f"it resizes {what}, and large factors are left out to avoid loss of precision (seen from 15.5)",
        "resize in steps of 2 to 4, tile a 1×1 map instead, or resize on the host",
    )


def state_types(op: TfliteOp) -> Problem | None:
    """An LSTM keeps its cell state in 16 bits, as TFLite quantises it; anything else has to be in 8.

    Seen mapped with an int8 output state and an int16 cell state (a Keras LSTM, quantised after training).
    """
    for tensor in op.inputs:
        if tensor.is_variable and tensor.spec.dtype not in ("int8", "uint8", "int16"):
            fix = "quantise the whole model to int8, with calibration data"
            return Problem(f"its state is {tensor.spec.dtype}", fix)
    return None


def plain_tile(op: TfliteOp) -> Problem | None:
    """TILE is in no documentation, but was seen mapped, repeating a 1×1 map in x and y (DeepLab slim).

    Repeating the batch cannot be mapped, as no tensor may have one.
    """
    multiples = op.integers(1)
    if multiples is None or not is_constant(op.input(1)):
        return Problem("how often it repeats is computed at run time", "make it a constant of the model")
    if len(multiples) > 3 and any(times != 1 for times in multiples[:-3]):
        return Problem("it repeats the batch", "repeat height, width or channels only")
    return None


def doubt(op: TfliteOp) -> str | None:
    """A reason to expect that the compiler may leave a supported operator on the CPU after all."""
    size = max(map(elements, op.outputs), default=0)
    if op.type in _DOUBTED and size > _DOUBTED_BYTES:
        return f"{op.type} of {size:,} bytes: the compiler has left such large ones on the CPU"
    return None


OPERATIONS = {
    "LSTM": (state_types,),
    "RESIZE_BILINEAR": (modest_resize,),
    "RESIZE_NEAREST_NEIGHBOR": (modest_resize,),
    "TILE": (plain_tile,),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": (state_types,),
}
