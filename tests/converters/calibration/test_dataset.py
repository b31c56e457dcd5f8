"""Calibration data are shaped, checked and split before they are used to quantize."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from converters.calibration.dataset import Calibration, from_arrays, from_pixels, lint, split, spread
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.artifact.manifest import Quantization
from runtimes.errors import InputError

NHWC = TensorSpec("image", "float32", ("batch", 4, 6, 3))
NCHW = TensorSpec("image", "float32", (1, 3, 4, 6))
UINT8 = TensorSpec("image", "uint8", (1, 4, 6, 3), Quantization((1 / 127.5,), (127,)))


def way(**changes) -> Preprocess:
    known = Preprocess("stretch", 4, (4, 6), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
    return replace(known, **changes)


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, 4, 6, 3), np.uint8)


@pytest.mark.parametrize("spec", [NHWC, UINT8])
def test_pixels_become_real_inputs(spec):
    pixels = pictures(3)
    found = from_pixels(pixels, [spec], way())
    assert found.samples["image"].shape == (3, 1, 4, 6, 3)
    assert found.samples["image"].dtype == np.float32
    assert np.allclose(found.samples["image"][:, 0], pixels / 127.5 - 1, atol=1e-6)


def test_pixels_in_the_models_layout_and_color_order():
    pixels = pictures(2)
    found = from_pixels(pixels, [NCHW], way(layout="NCHW", color="BGR", mean=(0,) * 3, scale=(1,) * 3))
    assert np.array_equal(found.samples["image"][:, 0], pixels[..., ::-1].transpose(0, 3, 1, 2))


def test_pixels_need_a_way_and_one_input():
    with pytest.raises(InputError) as caught:
        from_pixels(pictures(2), [NHWC], None)
    assert "--preprocess" in caught.value.hint
    with pytest.raises(InputError, match="2 inputs"):
        from_pixels(pictures(2), [NHWC, NCHW], way())


@pytest.mark.parametrize("shape", [(12, 4, 6, 3), (12, 1, 4, 6, 3)])
@pytest.mark.parametrize("name", ["image", "anything"])
def test_arrays_with_and_without_batch_under_any_name(shape, name):
    assert from_arrays({name: np.zeros(shape)}, [NHWC]).samples["image"].shape == (12, 1, 4, 6, 3)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"image": np.zeros((12, 3, 4, 6))}, r"NHWC or NCHW"),
        ({"image": np.zeros((12, 5, 5, 3))}, r"stack samples of \[1, 4, 6, 3\]"),
        ({"image": np.zeros((0, 4, 6, 3))}, "stack samples"),
        ({"image": np.array(["a"] * 12)}, "plain numbers"),
        ({"a": np.zeros(1), "b": np.zeros(1)}, "the file holds: a, b"),
        ({}, "nothing"),
    ],
)
def test_arrays_that_do_not_fit(arrays, words):
    with pytest.raises(InputError) as caught:
        from_arrays(arrays, [NHWC])
    assert re.search(words, caught.value.hint)


def test_inputs_need_the_same_number_of_samples():
    specs = [TensorSpec("a", "float32", (1, 2)), TensorSpec("b", "float32", (1, 2))]
    with pytest.raises(InputError, match="different numbers"):
        from_arrays({"a": np.zeros((3, 2)), "b": np.zeros((4, 2))}, specs)


def test_good_data_pass_without_a_word():
    assert lint(from_pixels(pictures(40), [NHWC], way()), way()) == []


def test_few_samples_are_reported_and_fewer_refused():
    assert "12 calibration samples are few" in lint(from_pixels(pictures(12), [NHWC], way()), way())[0]
    with pytest.raises(InputError, match="9 calibration samples are too few"):
        lint(from_pixels(pictures(9), [NHWC], way()), way())


def test_samples_that_are_all_the_same_are_refused():
    same = np.repeat(pictures(1), 40, axis=0)
    with pytest.raises(InputError, match="all 40 calibration samples of 'image' are the same"):
        lint(from_pixels(same, [NHWC], way()), way())


def test_one_input_of_several_may_always_be_the_same():
    ids = np.arange(400, dtype=np.float32).reshape(40, 1, 10)
    assert lint(Calibration({"ids": ids / 400, "mask": np.ones((40, 1, 10), np.float32)}), None) == []


def test_token_ids_are_not_taken_for_pixels():
    assert lint(Calibration({"ids": np.arange(400, dtype=np.float32).reshape(40, 1, 10)}), None) == []


def test_repetitions_are_reported():
    twice = np.concatenate([pictures(20), pictures(20)])
    assert lint(from_pixels(twice, [NHWC], way()), way()) == ["20 of 40 calibration samples of 'image' are repetitions"]


def test_raw_pixels_where_the_model_takes_minus_one_to_one():
    raw = from_arrays({"image": pictures(40)}, [NHWC])
    with pytest.raises(InputError, match="span 0 to 255; pictures as this model takes them span -1 to 1"):
        lint(raw, way())
    assert "raw pixels?" in lint(raw, None)[0]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(value):
    values = pictures(40) / 127.5 - 1
    values[3, 0, 0, 0] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        lint(from_arrays({"image": values}, [NHWC]), None)


def test_every_fifth_sample_is_held_out():
    whole = Calibration({"x": np.arange(100, dtype=np.float32)[:, None]})
    calibration, held_out = split(whole)
    assert len(calibration) == 80
    assert held_out.samples["x"][:, 0].tolist() == list(range(4, 100, 5))
    assert not set(calibration.samples["x"][:, 0]) & set(held_out.samples["x"][:, 0])


@pytest.mark.parametrize(("count", "chosen"), [(10, 10), (32, 32), (500, 32)])
def test_a_proof_takes_32_samples_at_most(count, chosen):
    values = spread(Calibration({"x": np.arange(count)[:, None]})).samples["x"][:, 0]
    assert len(set(values)) == chosen
    assert (values[0], values[-1]) == (0, count - 1)


def test_feeds_are_single_samples():
    calibration = Calibration({"a": np.zeros((2, 1, 3)), "b": np.ones((2, 1))})
    feeds = list(calibration.feeds())
    assert len(feeds) == len(calibration) == 2
    assert {name: array.shape for name, array in feeds[0].items()} == {"a": (1, 3), "b": (1,)}
