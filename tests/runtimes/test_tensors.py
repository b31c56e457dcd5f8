"""Pixels to inputs, real numbers to quantized ones and back, compared with hand-computed numbers."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.artifact.manifest import Preprocess, Quantization, TensorSpec
from runtimes.errors import InputError
from runtimes.tensors import dequantize, pixels_to_input, quantize

PIXELS = np.arange(24, dtype=np.uint8).reshape(2, 4, 3) * 10


def preprocess(**changes):
    usual = {
        "resize": "shorter_side",
        "size": 4,
        "crop": (2, 4),
        "method": "bilinear",
        "layout": "NHWC",
        "color": "RGB",
        "mean": (127.5, 127.5, 127.5),
        "scale": (1 / 127.5, 1 / 127.5, 1 / 127.5),
    }
    return Preprocess(**{**usual, **changes})


def spec(dtype, shape, scales=None, zero_points=(0,), axis=None):
    return TensorSpec("x", dtype, shape, None if scales is None else Quantization(scales, zero_points, axis))


def test_floats_are_scaled_around_the_mean():
    array = pixels_to_input(PIXELS, spec("float32", (1, 2, 4, 3)), preprocess())
    assert (array.shape, array.dtype) == ((1, 2, 4, 3), np.float32)
    np.testing.assert_allclose(array[0], (PIXELS - 127.5) / 127.5, rtol=1e-6)


def test_channels_first_and_blue_first():
    array = pixels_to_input(PIXELS, spec("float32", (1, 3, 2, 4)), preprocess(layout="NCHW", color="BGR"))
    assert array.shape == (1, 3, 2, 4)
    assert array.flags.c_contiguous
    np.testing.assert_allclose(array[0, 0], (PIXELS[..., 2] - 127.5) / 127.5, rtol=1e-6)
    np.testing.assert_allclose(array[0, 2], (PIXELS[..., 0] - 127.5) / 127.5, rtol=1e-6)


@pytest.mark.parametrize(("layout", "shape"), [("NHWC", (1, 16, 32, 1)), ("NCHW", (1, 1, 16, 32))])
def test_gray_is_the_luma_that_pillow_computes(layout, shape):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, (16, 32, 3), np.uint8)
    way = preprocess(layout=layout, color="GRAY", crop=(16, 32), mean=(10, 20, 30), scale=(0.5, 0.5, 0.5))
    array = pixels_to_input(pixels, spec("float32", shape), way)
    assert array.shape == shape
    luma = np.asarray(image.fromarray(pixels).convert("L"), np.float32)
    np.testing.assert_allclose(array.reshape(16, 32), (luma - 20) / 2, rtol=1e-6)


def test_each_channel_has_its_own_mean_and_scale():
    array = pixels_to_input(PIXELS, spec("float32", (1, 2, 4, 3)), preprocess(mean=(0, 10, 20), scale=(1, 0.5, 0.25)))
    np.testing.assert_allclose(array[0, 0, 0], [0, 0, 0])
    np.testing.assert_allclose(array[0, 1, 3], [210, 105, 52.5])


@pytest.mark.parametrize("scale", [1 / 127.5, 0.007843137718737125, 0.00784313678741455])
def test_a_coral_model_takes_pixels_as_they_are(scale):
    """1/127.5 as float64, and as its two neighbors in float32; zero point 127 puts every pixel half way."""
    pixels = np.arange(256, dtype=np.uint8).reshape(8, 32, 1).repeat(3, axis=2)
    quantized = spec("uint8", (1, 8, 32, 3), (scale,), (127,))
    np.testing.assert_array_equal(pixels_to_input(pixels, quantized, preprocess(crop=(8, 32)))[0], pixels)


def test_int8_is_uint8_less_128():
    quantized = spec("int8", (1, 2, 4, 3), (1 / 127.5,), (-1,))
    array = pixels_to_input(PIXELS, quantized, preprocess())
    np.testing.assert_array_equal(array[0].astype(int), PIXELS.astype(int) - 128)


@pytest.mark.parametrize(
    "pixels", [PIXELS.astype(np.float32), PIXELS[:, :3], PIXELS[..., :1], PIXELS[np.newaxis], PIXELS.transpose(1, 0, 2)]
)
def test_pixels_that_do_not_fit_are_refused(pixels):
    with pytest.raises(InputError, match=r"the model takes uint8\[2, 4, 3\]"):
        pixels_to_input(pixels, spec("float32", (1, 2, 4, 3)), preprocess())


def test_quantizing_rounds_to_the_nearest_and_clips():
    real = np.array([-100, -0.6, -0.4, 0, 0.4, 0.6, 100], np.float32)
    quantized = quantize(real, spec("int8", (7,), (1.0,), (3,)))
    np.testing.assert_array_equal(quantized, [-97, 2, 3, 3, 3, 4, 103])
    np.testing.assert_array_equal(quantize(real * 10, spec("int8", (7,), (1.0,), (3,)))[[0, -1]], [-128, 127])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_what_is_quantized_comes_back(dtype):
    limits = np.iinfo(dtype)
    values = np.arange(limits.min, limits.max + 1).astype(dtype)
    one = spec(dtype, (values.size,), (0.0123,), (7,))
    np.testing.assert_array_equal(quantize(dequantize(values, one.quantization), one), values)


def test_quantization_along_an_axis():
    values = np.array([[1, 1, 1], [2, 2, 2]], np.int8)
    along = Quantization((1.0, 0.5, 0.25), (0, 1, 2), 1)
    np.testing.assert_allclose(dequantize(values, along), [[1, 0, -0.25], [2, 0.5, 0]])
    np.testing.assert_allclose(dequantize(values, Quantization((1.0, 10.0), (0, 0), 0)), [[1, 1, 1], [20, 20, 20]])


def test_floats_pass_as_they_are():
    assert dequantize(np.array([0.5], np.float16), None).dtype == np.float32
    assert quantize(np.array([0.5]), spec("float16", (1,))).dtype == np.float16
