"""Will a model's parameters stay on the Edge TPU, or travel to it at every inference?

The chip has 8 MiB for parameters, of which the compiler first takes what its own program needs. A model whose
parameters fit into the rest sends them once; of a larger one the rest is streamed at every inference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from converters.check.tflite_op import TfliteOp, is_constant, sizes

# What the compiler reported as available for parameters, in logs of versions 14 to 16: 7.67 to 7.88 MiB. The lower
# end is taken. https://coral.ai/docs/edgetpu/compiler/#parameter-data-caching
USABLE_BYTES = int(7.67 * 2**20)
_USB2_BYTES_PER_S = 40e6  # what is left of 480 Mbit/s

# How the chip lays out the weights of a layer, found by comparing five models with the sizes in their compiled files,
# which it meets within 4 %: channels are filled up to these multiples, and an output channel takes 16 bytes more.
_OUTPUT_CHANNELS, _INPUT_CHANNELS, _DEPTHWISE_CHANNELS, _CHANNEL_BYTES = 32, 16, 128, 16


@dataclass(frozen=True)
class Cache:
    """An estimate: parameters kept on the chip, and streamed to it at every inference."""

    cached_bytes: int
    streamed_bytes: int

    @property
    def fits(self) -> bool:
        """Whether nothing has to be streamed."""
        return self.streamed_bytes == 0

    def as_dict(self) -> dict[str, int]:
        """The estimate for `edge check --json`."""
        return {
            "usable_bytes": USABLE_BYTES,
            "cached_bytes": self.cached_bytes,
            "streamed_bytes": self.streamed_bytes,
        }


def estimate(ops: Iterable[TfliteOp]) -> Cache:
    """How the parameters of the operators on the chip divide, constants that several share counted once."""
    layers = {op.operator.inputs[1]: op for op in ops if len(op.operator.inputs) > 1}
    total = sum(_chip_bytes(op) for op in layers.values())
    cached = min(total, USABLE_BYTES)
    return Cache(cached, total - cached)


def usb2_seconds(streamed_bytes: int) -> float:
    """The time that streaming takes at every inference over USB 2."""
    return streamed_bytes / _USB2_BYTES_PER_S


def _chip_bytes(op: TfliteOp) -> int:
    """The bytes that a layer's parameters take on the chip."""
    shape = sizes(op.input(1))
    if op.type == "DEPTHWISE_CONV_2D" and len(shape) == 4:
        return _filled(shape[3], _DEPTHWISE_CHANNELS) * (shape[1] * shape[2] + _CHANNEL_BYTES)
    if op.type in ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED") and len(shape) >= 2:
        weights = prod(shape[1:-1]) * _filled(shape[-1], _INPUT_CHANNELS)
        return _filled(shape[0], _OUTPUT_CHANNELS) * (weights + _CHANNEL_BYTES)
    return sum(tensor.constant_bytes for tensor in op.inputs if is_constant(tensor))


def _filled(channels: int, multiple: int) -> int:
    return -(-channels // multiple) * multiple
