"""Between a picture's pixels and a model's tensors, as the manifest says: nothing is guessed here."""

from __future__ import annotations

from typing import Any, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.manifest import OutputMeaning, Preprocess, Quantization, TensorSpec

# In steps: scales are stored with 24 bits, so that what is half way may come out a little below.
_SCALE_ERROR = 1e-4


def dequantize(values: Array, quantization: Quantization | None) -> Array:
    """Real numbers, float32: (q − zero_point) × scale; float tensors only change their dtype."""
    if quantization is None:
        return values.astype(np.float32)
    scale, zero_point = _broadcast(quantization, values.ndim)
    return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)


def quantize(real: Array, spec: TensorSpec) -> Array:
    """Real numbers in the dtype of `spec`, rounded to the nearest step and clipped to the dtype's range.

    A number half way between two steps goes up. So a model with the scale 1/127.5 and the zero point 127, where every
    pixel is half way, takes pixels as they are, as Coral's own programs feed it.
    """
    dtype = np.dtype(spec.dtype)
    if spec.quantization is None:
        return real.astype(dtype)
    scale, zero_point = _broadcast(spec.quantization, real.ndim)
    steps = np.floor(real.astype(np.float64) / scale + zero_point + 0.5 + _SCALE_ERROR)
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def pixels_to_input(pixels: Array, spec: TensorSpec, preprocess: Preprocess) -> Array:
    """One picture as the model takes it.

    `pixels` is uint8, [height, width, 3] in RGB, already resized and cropped; the result has the dtype of `spec`
    and a batch dimension of 1: [1, height, width, 3] or [1, 3, height, width].
    """
    if pixels.dtype != np.uint8 or pixels.shape != (*preprocess.crop, 3):
        given = f"{pixels.dtype.name}{list(pixels.shape)}"
        raise InputError(f"the picture is {given}; the model takes uint8{[*preprocess.crop, 3]}", "resize it first")
    channels = pixels if preprocess.color == "RGB" else pixels[..., ::-1]
    mean, scale = np.asarray(preprocess.mean, np.float64), np.asarray(preprocess.scale, np.float64)
    real = ((channels - mean) * scale)[np.newaxis]
    if preprocess.layout == "NCHW":
        real = real.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(quantize(real, spec))


def probabilities(output: Array, spec: TensorSpec, meaning: OutputMeaning) -> Array:
    """Class probabilities, float32 [classes], of one picture: dequantised, and through a softmax if they are logits."""
    real = dequantize(output, spec.quantization).reshape(-1)
    return softmax(real) if meaning.kind == "logit" else real


def softmax(logits: Array) -> Array:
    """Probabilities, float32, over the last axis."""
    powers: Array = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)


def raw_score(output: Array, spec: TensorSpec) -> float:
    """The number that a script prints which takes the top of the dequantised output as it comes."""
    return float(dequantize(output, spec.quantization).max())


def top_classes(
    probability: Array, meaning: OutputMeaning, labels: Sequence[str] | None = None, count: int = 5
) -> list[dict[str, Any]]:
    """The `count` likeliest classes: {"index", "label", "probability"}, likeliest first.

    `index` counts real classes (ImageNet's 0…999), so that models with and without a background row compare;
    the background itself is −1. Ties go to the lower index.
    """
    order = np.argsort(-probability, kind="stable")[:count]
    return [
        {
            "index": int(i) - meaning.label_offset,
            "label": labels[i] if labels is not None and i < len(labels) else None,
            "probability": float(probability[i]),
        }
        for i in order
    ]


def _broadcast(quantization: Quantization, dimensions: int) -> tuple[Array, Array]:
    scale = np.asarray(quantization.scales, np.float64)
    zero_point = np.asarray(quantization.zero_points, np.float64)
    if quantization.axis is None or scale.size == 1:
        return scale.reshape(-1)[0], zero_point.reshape(-1)[0]
    shape = [1] * dimensions
    shape[quantization.axis] = scale.size
    return scale.reshape(shape), zero_point.reshape(shape)
