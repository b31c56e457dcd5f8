"""Seeded synthetic inputs for verification without real ones, chosen to expose conversion errors.

With white noise of constant strength, a picture model's outputs hardly vary, so that swapped color channels would go
unnoticed; colored patches expose them. (MobileNetV2, signal-to-noise of fp16 weights and of swapped channels:
19 and 1 dB on noise, 30 and 4 dB on patches.) Each input has a seed of its own, so that two swapped inputs of one shape
are noticed as well. Token ids reach every row of their table where 32 samples are enough for that, its first and last
row in any case; masks are prefixes of ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import ceil, prod

import numpy as np

from converters.calibration.dataset import Calibration, from_pixels
from converters.calibration.input_roles import InputRole
from runtimes.arrays import Array
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.session import concrete_shape, example_feeds
from runtimes.tensors import dequantize

SAMPLES = 8
_MAX_SAMPLES = 32
_PATCHES = 7  # along each side
_MAX_CHANNELS = 4  # an array with more channels is not a picture
_USUAL = (-1.0, 1.0)  # the input range of most networks
_AWAY = 0.05  # how far values stay away from where a logarithm or a quotient is infinite

Change = Callable[[Array], Array]


def plain(values: Array) -> Array:
    """Change nothing. Masks are never all zeros then, and whole numbers are 0 or 1."""
    return values


# Distributions to try in turn if the usual values make a model return NaN or always the same: a logarithm or a root
# needs positive values, asin and log(1 − x) a share of one, acosh more than one, some features are large, and a
# detector of sounds answers 0 to loud noise.
DISTRIBUTIONS: Mapping[str, Change | None] = {
    "usual": None,
    "plain": plain,
    "positive": lambda values: np.abs(values) + _AWAY,
    "between 0 and 1": lambda values: 0.5 + (0.5 - _AWAY) * np.tanh(values),
    "above 1": lambda values: np.abs(values) + 1 + _AWAY,
    "negative": lambda values: -np.abs(values) - _AWAY,
    "large": lambda values: 100 * values,
    "small": lambda values: values / 10,
}


def make_inputs(
    inputs: Sequence[TensorSpec],
    preprocess: Preprocess | None,
    pixels: tuple[float, float] | None = None,
    roles: Mapping[str, InputRole] | None = None,
    change: Change | None = None,
    least: int = SAMPLES,
) -> Calibration:
    """Return seeded inputs: patches for picture inputs, else normally distributed values of increasing strength.

    pixels: The model's pixel range (`converters.calibration.input_range`); None means −1…1.
    roles: What inputs mean (`converters.calibration.input_roles`): token ids, masks, parts of a text.
    change: Applied to the real values of every input that has no role; one of `DISTRIBUTIONS`.
    least: The number of samples; more if a table has more rows than they reach.
    """
    if preprocess is not None and len(inputs) == 1:
        return from_pixels(_patches((*preprocess.crop, 3), least, 0), inputs, preprocess)
    roles = roles or {}
    count = max((least, *(_needed(spec, roles.get(spec.name, InputRole())) for spec in inputs)))
    return Calibration(
        {
            spec.name: _input(spec, roles.get(spec.name, InputRole()), pixels or _USUAL, change, (count, place))
            for place, spec in enumerate(inputs)
        }
    )


def value_range(samples: Calibration) -> tuple[float, float]:
    """Return the minimum and maximum of all values."""
    values = [array for array in samples.samples.values() if array.size]
    return float(min((one.min() for one in values), default=0)), float(max((one.max() for one in values), default=0))


def _needed(spec: TensorSpec, role: InputRole) -> int:
    """Return how many samples reach every row of the input's table, if few enough do."""
    needed = ceil((role.rows or 0) / max(1, prod(concrete_shape(spec))))
    return needed if SAMPLES < needed <= _MAX_SAMPLES else SAMPLES


def _input(
    spec: TensorSpec, role: InputRole, pixels: tuple[float, float], change: Change | None, seed: tuple[int, int]
) -> Array:
    """Return the samples of one input; `seed` is the number of samples and the place of the input."""
    count, place = seed
    shape = (count, *concrete_shape(spec))
    if role.is_mask or (role.is_segments and shape[-1] > 1):
        is_empty_too = change is None and spec.dtype == "bool"
        ones = _prefixes(shape, np.random.default_rng([0, place]), is_empty_too)
        return 1 - ones if role.is_segments else ones
    if role.rows is not None:
        return _rows(shape, role.rows, np.random.default_rng([0, place]))
    if role.bounds is not None and change is None:
        low, high = role.bounds
        return np.random.default_rng([1, place]).integers(low, high + 1, shape).astype(np.float32)
    values = _values(spec, pixels, count, place)
    is_real = np.dtype(spec.dtype).kind == "f" or spec.quantization is not None
    return change(values).astype(np.float32) if change is not None and is_real else values


def _prefixes(shape: tuple[int, ...], generator: np.random.Generator, is_empty_too: bool) -> Array:
    """Return ones up to a position on the last axis, at least one, then zeros; the first sample is all ones.

    is_empty_too: Whether the last sample is all zeros, where engines have divided by zero.
    """
    longest = shape[-1]
    lengths = generator.integers(1, longest + 1, shape[0])
    lengths[0] = longest
    if is_empty_too and len(lengths) > 1:
        lengths[-1] = 0
    ones = np.arange(longest) < lengths[:, np.newaxis]
    return np.broadcast_to(ones.reshape(shape[0], *[1] * (len(shape) - 2), longest), shape).astype(np.float32)


def _rows(shape: tuple[int, ...], rows: int, generator: np.random.Generator) -> Array:
    """Return row numbers in random order, each as often as any other; the last and the first row come first."""
    size = prod(shape)
    numbers = np.concatenate([generator.permutation(rows) for _ in range(ceil(size / rows))])[:size]
    for place, row in enumerate((rows - 1, 0)[: shape[0]]):  # at the start of the first two samples, inside any mask
        start = place * (size // shape[0])
        numbers[np.flatnonzero(numbers == row)[:1]] = numbers[start]
        numbers[start] = row
    return numbers.reshape(shape).astype(np.float32)


def _values(spec: TensorSpec, pixels: tuple[float, float], count: int, place: int) -> Array:
    shape = concrete_shape(spec)
    low_high = _range(spec, pixels)
    if low_high is None or len(shape) != 4 or min(shape[1], shape[3]) > _MAX_CHANNELS:
        return np.stack([_noise(spec, sample, place, count) for sample in range(count)])
    low, high = low_high
    is_nhwc = shape[3] <= _MAX_CHANNELS
    patches = _patches(shape[1:] if is_nhwc else (*shape[2:], shape[1]), count * shape[0], place)
    real = (low + patches / 255 * (high - low)).astype(np.float32)
    return (real if is_nhwc else real.transpose(0, 3, 1, 2)).reshape(count, *shape)


def _range(spec: TensorSpec, pixels: tuple[float, float]) -> tuple[float, float] | None:
    """Return a picture's value range: `pixels` for floats, the whole range of bytes, None for other integers."""
    dtype = np.dtype(spec.dtype)
    if dtype.kind == "f":
        return pixels
    if dtype.kind == "b" or (spec.quantization is None and dtype != np.uint8):
        return None
    limits = np.iinfo(dtype)
    low, high = dequantize(np.array([limits.min, limits.max]), spec.quantization)
    return float(low), float(high)


def _noise(spec: TensorSpec, sample: int, place: int, count: int) -> Array:
    """Return one dequantized sample: the example values, with floats scaled by 0.25 to 2."""
    values = example_feeds([spec], sample if place == 0 else [sample, place])[spec.name]
    if values.dtype.kind == "f":
        values = values * values.dtype.type(2 * (sample + 1) / count)
    return dequantize(np.asarray(values), spec.quantization)


def _patches(size: tuple[int, ...], count: int, place: int) -> Array:
    """Return seeded pictures of colored patches with some noise: uint8 [n, height, width, channels]."""
    generator = np.random.default_rng(0 if place == 0 else [0, place])
    height, width, channels = size
    coarse = generator.integers(0, 256, (count, _PATCHES, _PATCHES, channels))
    rows, columns = np.arange(height) * _PATCHES // height, np.arange(width) * _PATCHES // width
    noise = generator.integers(-20, 21, (count, height, width, channels))
    pixels: Array = np.clip(coarse[:, rows][:, :, columns] + noise, 0, 255)
    return pixels.astype(np.uint8)
