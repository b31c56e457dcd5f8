"""Options that describe a bare model's input."""

from __future__ import annotations

import argparse

import pytest

from edge.cli.options.model_hints import add_preprocessing, preprocess_options_from
from edge.inference.preprocessing import PreprocessOptions, override, preprocess_for
from runtimes.artifact import TensorSpec
from runtimes.artifact.manifest import Quantization
from runtimes.errors import UsageError

NHWC = TensorSpec("image", "float32", ("batch", 224, 160, 3))
NCHW = TensorSpec("image", "float32", (1, 3, 224, 224))
UINT8 = TensorSpec("image", "uint8", (1, 224, 224, 3), Quantization((0.0078125,), (128,)))


def parsed(*words: str) -> PreprocessOptions:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_preprocessing(parser)
    return preprocess_options_from(parser.parse_args(words))


def test_no_options():
    assert not parsed().anything
    assert not parsed("--preprocess", "none").anything


def test_kerass_way():
    way = preprocess_for(parsed("--preprocess", "keras-mobilenet-v2"), NHWC)
    assert (way.layout, way.crop, way.resize, way.color) == ("NHWC", (224, 160), "shorter_side", "RGB")
    assert way.size == 256  # by the longer side of the crop, 224 × 256 / 224, or a landscape would not cover it
    assert (0 - way.mean[0]) * way.scale[0] == pytest.approx(-1)
    assert (255 - way.mean[0]) * way.scale[0] == pytest.approx(1)


def test_torchvisions_way():
    way = preprocess_for(parsed("--preprocess", "torchvision"), NCHW)
    assert (way.layout, way.size, way.crop) == ("NCHW", 256, (224, 224))
    red = (124 - way.mean[0]) * way.scale[0]
    assert red == pytest.approx((124 / 255 - 0.485) / 0.229)


def test_the_byte_is_the_pixel():
    way = preprocess_for(parsed("--preprocess", "tflite-uint8"), UINT8)
    assert [(pixel - way.mean[0]) * way.scale[0] / 0.0078125 + 128 for pixel in (0, 77, 255)] == [0, 77, 255]
    with pytest.raises(UsageError, match="quantized input"):
        preprocess_for(parsed("--preprocess", "tflite-uint8"), NHWC)


def test_single_values():
    words = ["--mean", "1,2,3", "--scale", "0.5", "--color", "BGR", "--resize", "stretch", "--layout", "NHWC"]
    way = preprocess_for(parsed(*words), NHWC)
    assert (way.mean, way.scale) == ((1, 2, 3), (0.5, 0.5, 0.5))
    assert (way.color, way.resize) == ("BGR", "stretch")


def test_scaling_is_never_guessed():
    with pytest.raises(UsageError, match="scaling of pixel values is not known"):
        preprocess_for(parsed("--color", "BGR"), NHWC)


@pytest.mark.parametrize("shape", [(1, 10), (1, 8, 8, 16)])
def test_an_input_that_is_no_picture(shape):
    with pytest.raises(UsageError, match="not a picture"):
        preprocess_for(parsed("--preprocess", "torchvision"), TensorSpec("x", "float32", shape))


def test_what_is_said_goes_before_what_is_known():
    known = preprocess_for(parsed("--preprocess", "torchvision"), NCHW)
    assert override(known, parsed("--color", "BGR"), NCHW).color == "BGR"
    assert override(known, parsed("--color", "BGR"), NCHW).mean == known.mean
    assert override(known, parsed("--preprocess", "keras-mobilenet-v2"), NCHW).mean == (127.5,) * 3
    assert override(known, PreprocessOptions(), NCHW) == known


@pytest.mark.parametrize("words", ["1,2", "a", "", "1,2,3,4"])
def test_one_number_or_three(words):
    with pytest.raises(argparse.ArgumentError, match="not one number, nor three"):
        parsed("--mean", words)
