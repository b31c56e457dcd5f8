"""Inputs for a proof where nobody gave real ones: seeded, and such that a wrong conversion shows.

White noise of one strength makes a picture model answer almost the same every time, so that a result without colour
order would pass; coloured patches do not. (MobileNetV2, signal-to-noise of fp16 weights and of swapped channels:
19 and 1 dB on noise, 30 and 4 dB on patches.)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from converters.calibration import Calibration, from_pixels
from runtimes.arrays import Array
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.session import concrete_shape, example_feeds
from runtimes.tensors import dequantize

SAMPLES = 8
_PATCHES = 7  # along each side
_MOST_CHANNELS = 4  # more than that is no picture
_USUAL = (-1.0, 1.0)  # what most networks take


def synthetic(
    inputs: Sequence[TensorSpec], preprocess: Preprocess | None, pixels: tuple[float, float] | None = None
) -> Calibration:
    """Seeded real inputs: patches where an input is a picture, else normal values of rising strength.

    `pixels` are the values that pictures have for the model (`converters.input_range`), −1…1 where None.
    """
    if preprocess is not None and len(inputs) == 1:
        return from_pixels(_patches((*preprocess.crop, 3)), inputs, preprocess)
    return Calibration({spec.name: _values(spec, pixels or _USUAL) for spec in inputs})


def value_range(samples: Calibration) -> tuple[float, float]:
    """The smallest and the largest of all values."""
    values = samples.samples.values()
    return float(min(array.min() for array in values)), float(max(array.max() for array in values))


def _values(spec: TensorSpec, pixels: tuple[float, float]) -> Array:
    shape = concrete_shape(spec)
    low_high = _range(spec, pixels)
    if low_high is None or len(shape) != 4 or min(shape[1], shape[3]) > _MOST_CHANNELS:
        return np.stack([_noise(spec, seed) for seed in range(SAMPLES)])
    low, high = low_high
    is_nhwc = shape[3] <= _MOST_CHANNELS
    patches = _patches(shape[1:] if is_nhwc else (*shape[2:], shape[1]))
    real = (low + patches / 255 * (high - low)).astype(np.float32)
    return (real if is_nhwc else real.transpose(0, 3, 1, 2))[:, np.newaxis]


def _range(spec: TensorSpec, pixels: tuple[float, float]) -> tuple[float, float] | None:
    """What a picture may hold: `pixels` for floats, all that a quantised input can; None for plain integers."""
    if np.dtype(spec.dtype).kind == "f":
        return pixels
    if spec.quantization is None:
        return None
    limits = np.iinfo(spec.dtype)
    low, high = dequantize(np.array([limits.min, limits.max]), spec.quantization)
    return float(low), float(high)


def _noise(spec: TensorSpec, seed: int) -> Array:
    """One sample: the example values, floats 0.25 to 2 times as strong, as real numbers."""
    values = example_feeds([spec], seed)[spec.name]
    if values.dtype.kind == "f":
        values = values * values.dtype.type(0.25 * (seed + 1))
    return dequantize(values, spec.quantization)


def _patches(size: tuple[int, ...]) -> Array:
    """Seeded pictures of coloured patches with a little noise: uint8 [n, height, width, channels]."""
    generator = np.random.default_rng(0)
    height, width, channels = size
    coarse = generator.integers(0, 256, (SAMPLES, _PATCHES, _PATCHES, channels))
    rows, columns = np.arange(height) * _PATCHES // height, np.arange(width) * _PATCHES // width
    noise = generator.integers(-20, 21, (SAMPLES, height, width, channels))
    pixels: Array = np.clip(coarse[:, rows][:, :, columns] + noise, 0, 255)
    return pixels.astype(np.uint8)
