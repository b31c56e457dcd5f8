"""Calibration data: real model inputs, from which quantization derives the range of every tensor.

Sizes: TensorFlow's guide recommends "around 100-500 samples"; 32 already find the ranges of a picture model within a
few per cent, so fewer cause a warning. Fewer than 10 are refused: too few remain for verification (two are held out),
and the ranges are those of single pictures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from converters.calibration.sizes import sizes_of, with_sizes
from runtimes.arrays import Array, Arrays
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.errors import InputError
from runtimes.session import concrete_shape, format_shape
from runtimes.tensors import pixels_to_input, quantize

FEWEST = 10
ENOUGH = 32
MAX_SAMPLES = 500  # TensorFlow recommends "100-500"; more only takes longer
PIXELS = "pixels"  # the array of an .npz that holds decoded pictures, uint8 [n, height, width, 3]
_PICTURES_NDIM = 5  # [n, batch, …] of pictures; token ids may be large
_HELD_OUT_EVERY = 5
_FOR_PROOF = 32  # more would only be slower
MAX_SEQUENCE = 128  # samples of a model with a state: a wake word takes 50 steps of 30 ms


@dataclass(frozen=True)
class Calibration:
    """Real float32 inputs in the model's layout: {input name: [n, *shape]}; each sample has the batch dimension."""

    samples: Arrays

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.samples.values()))) if self.samples else 0

    def feeds(self) -> Iterator[dict[str, Array]]:
        """Iterate over the samples: {input name: [*shape]}."""
        for index in range(len(self)):
            yield {name: np.asarray(values[index]) for name, values in self.samples.items()}


def from_pixels(pixels: Array, inputs: Sequence[TensorSpec], preprocess: Preprocess | None) -> Calibration:
    """Convert decoded pictures (uint8 [n, height, width, 3], RGB) to inputs of a model that takes one picture."""
    if preprocess is None:
        raise InputError(
            "the calibration data are pictures, but their preprocessing is not known", "specify it with --preprocess"
        )
    if len(inputs) != 1:
        raise InputError(f"the model takes {len(inputs)} inputs, not one picture", "pass its inputs as an .npz file")
    spec = replace(inputs[0], dtype="float32", quantization=None)
    rows = np.concatenate([pixels_to_input(picture, spec, preprocess) for picture in pixels])
    return from_arrays({spec.name: _batch(rows, concrete_shape(spec)[0])}, inputs)


def _batch(pictures: Array, batch: int) -> Array:
    """Group pictures [n, …] into samples [n / batch, batch, …]; the first pictures complete the last sample."""
    short = -len(pictures) % batch
    filled = np.concatenate([pictures, np.resize(pictures, (short, *pictures.shape[1:]))])
    return filled.reshape(-1, batch, *pictures.shape[1:])


def from_arrays(arrays: Arrays, inputs: Sequence[TensorSpec]) -> Calibration:
    """Check arrays of real values by input name, [n, *shape] with or without the batch dimension.

    For a model with one input, the array may have any name. Raises InputError for arrays that do not match the model.
    """
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    missing = sorted({spec.name for spec in inputs} - set(arrays))
    if missing:
        hint = f"the file holds: {', '.join(sorted(arrays)) or 'nothing'}"
        raise InputError(f"the calibration data hold nothing for input '{missing[0]}'", hint)
    samples = {spec.name: _reshape(arrays[spec.name], spec) for spec in with_sizes(inputs, sizes_of(arrays, inputs))}
    if len({len(values) for values in samples.values()}) != 1:
        raise InputError(
            "the calibration data have different numbers of samples per input", "provide every input for each sample"
        )
    return Calibration(samples)


def lint(calibration: Calibration, preprocess: Preprocess | None) -> list[str]:
    """Check the data. Raises InputError for data that would spoil a quantized model; returns a list of warnings.

    Errors: fewer than `FEWEST` samples, non-finite values, identical samples, values outside the range of `preprocess`.
    Warnings: fewer than `ENOUGH` samples, repeated samples, values that look like raw pixels.
    """
    count = len(calibration)
    if count < FEWEST:
        raise InputError(
            f"{count} calibration samples are too few to quantize with", f"give {FEWEST} or more, better 100"
        )
    notes = [f"{count} calibration samples are few: 100 or more give more reliable ranges"] if count < ENOUGH else []
    distinct = {name: len({row.tobytes() for row in values}) for name, values in calibration.samples.items()}
    if set(distinct.values()) == {1}:  # a single constant input of several is fine, such as an all-ones mask
        first = next(iter(distinct))
        raise InputError(f"all {count} calibration samples of '{first}' are the same", "give different ones")
    for name, values in calibration.samples.items():
        _check_values(name, values, preprocess)
        if 1 < distinct[name] < count:
            notes.append(f"{count - distinct[name]} of {count} calibration samples of '{name}' are repetitions")
        if preprocess is None and values.ndim == _PICTURES_NDIM and float(values.max()) > 64:
            notes.append(f"calibration values of '{name}' reach {values.max():g}: are these raw pixels?")
    return notes


def split(calibration: Calibration) -> tuple[Calibration, Calibration]:
    """Split into calibration and held-out verification samples (every fifth), which never overlap."""
    held_out = np.arange(len(calibration)) % _HELD_OUT_EVERY == _HELD_OUT_EVERY - 1
    return _select_rows(calibration, ~held_out), spread(_select_rows(calibration, held_out))


def spread(calibration: Calibration) -> Calibration:
    """Return at most 32 evenly spread samples, enough for verification."""
    count = len(calibration)
    return _select_rows(calibration, np.linspace(0, count - 1, min(count, _FOR_PROOF)).astype(int))


def sequence(calibration: Calibration) -> Calibration:
    """Return the first samples in their order, for the verification of a model that keeps a state."""
    return _select_rows(calibration, np.arange(min(len(calibration), MAX_SEQUENCE)))


def _select_rows(calibration: Calibration, rows: Array) -> Calibration:
    return Calibration({name: values[rows] for name, values in calibration.samples.items()})


def _reshape(values: Array, spec: TensorSpec) -> Array:
    if values.dtype.kind not in "biuf":
        raise InputError(f"the calibration data of '{spec.name}' hold {values.dtype}", "give plain numbers")
    shape = concrete_shape(spec)
    if shape[:1] == (1,) and values.shape[1:] == shape[1:]:
        values = values[:, np.newaxis]
    if values.shape[1:] != shape or len(values) == 0:
        wanted, given = format_shape(shape), format_shape(values.shape[1:])
        hint = f"stack samples of {wanted} on a new first axis{_order_hint(values.shape[1:], shape)}"
        raise InputError(f"the calibration samples of '{spec.name}' are {given}; the model takes {wanted}", hint)
    return values.astype(np.float32)


def _order_hint(given: Sequence[int], wanted: Sequence[int]) -> str:
    """Return a hint about channel order if the sizes are right but in another order."""
    sizes = wanted[1:] if len(given) == len(wanted) - 1 else wanted
    same = given != sizes and sorted(given) == sorted(sizes)
    return "; the sizes are right, the order is not: NHWC or NCHW?" if same else ""


def _check_values(name: str, values: Array, preprocess: Preprocess | None) -> None:
    if not np.isfinite(values).all():
        raise InputError(f"the calibration data of '{name}' hold NaN or infinity", "leave those samples out")
    if preprocess is None:
        return
    mean, scale = np.asarray(preprocess.mean), np.asarray(preprocess.scale)
    ends = np.concatenate([(0 - mean) * scale, (255 - mean) * scale])
    low, high = float(ends.min()), float(ends.max())
    slack = 0.01 * (high - low)
    if values.min() < low - slack or values.max() > high + slack:
        span = f"span {values.min():g} to {values.max():g}; pictures as this model takes them span {low:g} to {high:g}"
        raise InputError(f"the calibration values of '{name}' {span}", "preprocess them as the model's inputs")


def to_model_dtypes(inputs: Sequence[TensorSpec], real: Arrays) -> Arrays:
    """Quantize samples [n, *shape] to the model's input dtypes."""
    return {spec.name: _quantize(real[spec.name], spec) for spec in inputs}


def _quantize(real: Array, spec: TensorSpec) -> Array:
    return np.stack([quantize(sample, spec) for sample in real])
