"""Count the multiply-adds of TFLite operators: the cost of an inference, and the accelerator's share of it.

    convolution             output elements × kernel height × kernel width × input channels
    depthwise convolution   output elements × kernel height × kernel width
    transposed convolution  input elements × kernel height × kernel width × output channels
    fully connected         output elements × input features
    batched matrix product  output elements × inner dimension
    LSTM                    elements of its weight matrices × time steps × batch

Weight layouts: LiteRT's reference kernels (conv OHWI, depthwise 1HWO, dense OI, 3-D DHWIO). All other operators count
as 0: elementwise work is small compared to these, and is bound by moving data rather than by computing.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod

from converters.tflite.op import TfliteOp, elements, sizes

_LSTM_WEIGHTS = range(1, 9)


def macs(op: TfliteOp) -> int:
    """Return the multiply-adds of one inference. A free dimension counts as 1."""
    count = _COUNTS.get(op.type)
    return count(op) if count and op.outputs and not op.operator.is_custom else 0


def _convolution(op: TfliteOp) -> int:
    return elements(op.outputs[0]) * prod(sizes(op.input(1))[1:])


def _depthwise(op: TfliteOp) -> int:
    return elements(op.outputs[0]) * prod(sizes(op.input(1))[1:3])


def _transposed(op: TfliteOp) -> int:
    return elements(op.input(2)) * prod(sizes(op.input(1))[:3])


def _dense(op: TfliteOp) -> int:
    return elements(op.outputs[0]) * prod(sizes(op.input(1))[1:])


def _matrix_product(op: TfliteOp) -> int:
    left, transposed = sizes(op.input(0)), bool(op.option(0, "b"))
    return elements(op.outputs[0]) * left[-2 if transposed else -1] if len(left) >= 2 else 0


def _convolution_3d(op: TfliteOp) -> int:
    return elements(op.outputs[0]) * prod(sizes(op.input(1))[:4])


def _lstm(op: TfliteOp) -> int:
    steps = prod(sizes(op.input(0))[:-1])
    return steps * sum(elements(op.input(place)) for place in _LSTM_WEIGHTS)


_COUNTS: dict[str, Callable[[TfliteOp], int]] = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": _transposed,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matrix_product,
    "CONV_3D": _convolution_3d,
    "LSTM": _lstm,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": _lstm,
}
