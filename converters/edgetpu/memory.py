"""Estimate whether a model's parameters stay on the Edge TPU, or are sent to it at every inference.

The chip has 8 MiB for parameters, of which the compiled program itself takes a part. Parameters that fit into the rest
are sent once; the remaining ones of a larger model are streamed at every inference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from converters.tflite.op import TfliteOp, is_constant, sizes

# The compiler reported 7.67 to 7.88 MiB as available for parameters, in logs of versions 14 to 16. This is the lower
# end. https://coral.ai/docs/edgetpu/compiler/#parameter-data-caching
USABLE_BYTES = int(7.67 * 2**20)
_USB2_BYTES_PER_S = 40e6  # what is left of 480 Mbit/s

# The layout of a layer's weights on the chip, derived from the sizes in five compiled models, which it predicts within
# 4 %: channels are padded to these multiples, and each output channel takes 16 more bytes.
_OUTPUT_CHANNELS, _INPUT_CHANNELS, _DEPTHWISE_CHANNELS, _CHANNEL_BYTES = 32, 16, 128, 16


@dataclass(frozen=True)
class ParameterCache:
    """An estimate of the bytes of parameters cached on the chip, and streamed to it at every inference."""

    cached_bytes: int
    streamed_bytes: int

    @property
    def fits(self) -> bool:
        """Whether nothing has to be streamed."""
        return self.streamed_bytes == 0

    def as_dict(self) -> dict[str, int]:
        """Return the estimate for `edge check --json`."""
        return {
            "usable_bytes": USABLE_BYTES,
            "cached_bytes": self.cached_bytes,
            "streamed_bytes": self.streamed_bytes,
        }


def estimate(ops: Iterable[TfliteOp]) -> ParameterCache:
    """Estimate the cached and streamed parameters of these operators. Shared constants are counted once."""
    layers = {op.operator.inputs[1]: op for op in ops if len(op.operator.inputs) > 1}
    total = sum(_chip_bytes(op) for op in layers.values())
    cached = min(total, USABLE_BYTES)
    return ParameterCache(cached, total - cached)


def usb2_seconds(streamed_bytes: int) -> float:
    """Return the seconds that streaming takes at every inference over USB 2."""
    return streamed_bytes / _USB2_BYTES_PER_S


def _chip_bytes(op: TfliteOp) -> int:
    """Return the bytes that a layer's parameters take on the chip."""
    shape = sizes(op.input(1))
    if op.type == "DEPTHWISE_CONV_2D" and len(shape) == 4:
        return _pad(shape[3], _DEPTHWISE_CHANNELS) * (shape[1] * shape[2] + _CHANNEL_BYTES)
    if op.type in ("CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED") and len(shape) >= 2:
        weights = prod(shape[1:-1]) * _pad(shape[-1], _INPUT_CHANNELS)
        return _pad(shape[0], _OUTPUT_CHANNELS) * (weights + _CHANNEL_BYTES)
    return sum(tensor.constant_bytes for tensor in op.inputs if is_constant(tensor))


def _pad(channels: int, multiple: int) -> int:
    return -(-channels // multiple) * multiple
