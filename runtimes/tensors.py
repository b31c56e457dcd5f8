"""Convert between real numbers or pixels and a model's tensors, strictly by the manifest."""

from __future__ import annotations

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.manifest import Preprocess, Quantization, TensorSpec
from runtimes.errors import InputError
from runtimes.session import concrete_shape

# In quantization steps: scales have 24-bit precision, so an exact half may come out slightly below.
_SCALE_ERROR = 1e-4
_LUMA = np.array([19595, 38470, 7471], np.uint32)  # of red, green and blue, times 65,536


def dequantize(values: Array, quantization: Quantization | None) -> Array:
    """Dequantize to float32: (q − zero_point) × scale. Float tensors are only cast."""
    if quantization is None:
        return values.astype(np.float32)
    scale, zero_point = _broadcast(quantization, values.ndim)
    return ((values.astype(np.float64) - zero_point) * scale).astype(np.float32)


def quantize(real: Array, spec: TensorSpec) -> Array:
    """Quantize real numbers to the dtype of `spec`: round to the nearest step and clip to the dtype's range.

    Halves round up. With a scale of 1/127.5 and a zero point of 127 every pixel is a half, so the model receives the
    pixels unchanged, which is how Coral's own programs feed it.
    """
    dtype = np.dtype(spec.dtype)
    if spec.quantization is None:
        return real.astype(dtype)
    scale, zero_point = _broadcast(spec.quantization, real.ndim)
    steps = np.floor(real.astype(np.float64) / scale + zero_point + 0.5 + _SCALE_ERROR)
    limits = np.iinfo(dtype)
    return np.clip(steps, limits.min, limits.max).astype(dtype)


def zeros(spec: TensorSpec) -> Array:
    """Return the initial value of a state: zero as a real number, with free sizes of 1."""
    return quantize(np.zeros(concrete_shape(spec), np.float32), spec)


def pixels_to_input(pixels: Array, spec: TensorSpec, preprocess: Preprocess) -> Array:
    """Convert a picture to the model's input tensor.

    `pixels` is uint8, [height, width, 3] in RGB, already resized and cropped; the result has the dtype of `spec`
    and a batch dimension of 1: [1, height, width, channels] or [1, channels, height, width].
    """
    if pixels.dtype != np.uint8 or pixels.shape != (*preprocess.crop, 3):
        actual = f"{pixels.dtype.name}{list(pixels.shape)}"
        raise InputError(f"the picture is {actual}; the model takes uint8{[*preprocess.crop, 3]}", "resize it first")
    mean, scale = np.asarray(preprocess.mean, np.float64), np.asarray(preprocess.scale, np.float64)
    if preprocess.color == "GRAY":
        channels, mean, scale = _luma(pixels), mean.mean(), scale.mean()
    else:
        channels = pixels if preprocess.color == "RGB" else pixels[..., ::-1]
    real = ((channels - mean) * scale)[np.newaxis]
    if preprocess.layout == "NCHW":
        real = real.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(quantize(real, spec))


def _luma(pixels: Array) -> Array:
    """Return the gray of RGB pixels, [height, width, 1], by ITU-R 601 with the rounding of Pillow's mode L."""
    gray: Array = (pixels.astype(np.uint32) @ _LUMA + 0x8000) >> 16
    return gray[..., np.newaxis]


def softmax(logits: Array) -> Array:
    """Return the softmax over the last axis, float32."""
    powers: Array = np.exp((logits - logits.max(axis=-1, keepdims=True)).astype(np.float64))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares.astype(np.float32)


def sigmoid(logits: Array) -> Array:
    """Return 1 ÷ (1 + exp(−x)), without overflow."""
    shares: Array = 1 / (1 + np.exp(-np.clip(logits, -80, 80)))
    return shares


def _broadcast(quantization: Quantization, dimensions: int) -> tuple[Array, Array]:
    scale = np.asarray(quantization.scales, np.float64)
    zero_point = np.asarray(quantization.zero_points, np.float64)
    if quantization.axis is None or scale.size == 1:
        return scale.reshape(-1)[0], zero_point.reshape(-1)[0]
    shape = [1] * dimensions
    shape[quantization.axis] = scale.size
    return scale.reshape(shape), zero_point.reshape(shape)
