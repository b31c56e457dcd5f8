"""Seeded synthetic inputs, on which a wrong conversion gives wrong answers."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.input_roles import InputRole
from converters.calibration.synthetic import DISTRIBUTIONS, SAMPLES, make_inputs, value_range
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.artifact.manifest import Quantization


@pytest.mark.parametrize("shape", [(1, 28, 28, 3), (1, 3, 28, 28), ("batch", 28, 28, 1)])
def test_a_picture_is_patches_from_minus_one_to_one(shape):
    values = make_inputs([TensorSpec("x", "float32", shape)], None).samples["x"]
    assert values.shape == (SAMPLES, 1, *shape[1:])
    assert values.dtype == np.float32
    assert values.min() == -1
    assert values.max() == 1
    # Neighbors are alike and channels are not: that is what makes a swap of either show.
    rows = values[:, 0] if shape[-1] != 28 else values[:, 0].transpose(0, 2, 3, 1)
    assert np.abs(np.diff(rows, axis=1)).mean() < 0.5 * np.abs(rows - rows[:, ::-1, ::-1]).mean()


def test_a_model_that_rescales_pixels_gets_pixels():
    samples = make_inputs([TensorSpec("x", "float32", (1, 28, 28, 3))], None, (0.0, 255.0))
    assert value_range(samples) == (0, 255)


def test_a_quantized_picture_covers_its_range():
    spec = TensorSpec("x", "uint8", (1, 28, 28, 3), Quantization((0.5,), (100,)))
    values = make_inputs([spec], None).samples["x"]
    assert (values.min(), values.max()) == (-50.0, 77.5)


def test_a_known_way_is_gone():
    way = Preprocess("stretch", 28, (28, 20), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    values = make_inputs([TensorSpec("x", "float32", (1, 28, 20, 3))], way).samples["x"]
    assert (values.min(), values.max()) == (0, 255)


def test_other_inputs_are_values_of_rising_strength():
    specs = [TensorSpec("x", "float32", (1, 400)), TensorSpec("ids", "int64", (1, 16))]
    samples = make_inputs(specs, None).samples
    strengths = samples["x"].std(axis=(1, 2))
    assert np.allclose(strengths, 0.25 * np.arange(1, SAMPLES + 1), rtol=0.2)
    assert set(np.unique(samples["ids"])) <= {0, 1}


def test_the_same_every_time():
    spec = TensorSpec("x", "float32", (1, 28, 28, 3))
    assert np.array_equal(make_inputs([spec], None).samples["x"], make_inputs([spec], None).samples["x"])


@pytest.mark.parametrize("shape", [(1, 6), (1, 24, 24, 3), (1, 3, 24, 24), ()])
def test_two_inputs_of_one_shape_differ(shape):
    samples = make_inputs([TensorSpec("before", "float32", shape), TensorSpec("after", "float32", shape)], None).samples
    assert samples["before"].shape == samples["after"].shape == (SAMPLES, *shape)
    assert np.abs(samples["before"] - samples["after"]).mean() > 0.1


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (4, 24, 24, 3), (20, 6), (2, 3, 4, 5, 6, 7), (5,)])
def test_the_leading_axis_is_what_the_model_says(shape):
    samples = make_inputs([TensorSpec("x", "float32", shape)], None)
    assert samples.samples["x"].shape == (SAMPLES, *shape)


@pytest.mark.parametrize("rows", [2, 5, 300, 30522])
def test_token_ids_reach_the_first_and_the_last_row_and_every_other_where_few_samples_do(rows):
    spec = TensorSpec("ids", "int64", (1, 12))
    ids = make_inputs([spec], None, roles={"ids": InputRole(rows=rows)}).samples["ids"]
    reached = set(np.unique(ids).astype(int).tolist())
    assert {0, rows - 1} <= reached <= set(range(rows))
    assert len(reached) == min(rows, ids.size)
    assert len(ids) == (25 if rows == 300 else SAMPLES)  # 25 samples of 12 ids hold 300


def test_masks_are_prefixes_of_ones_and_parts_of_a_text_follow_each_other():
    specs = [TensorSpec(name, "int64", (1, 12)) for name in ("ids", "mask", "types")]
    roles = {"ids": InputRole(rows=99), "mask": InputRole(is_mask=True), "types": InputRole(rows=2, is_segments=True)}
    samples = make_inputs(specs, None, roles=roles).samples
    assert (np.diff(samples["mask"]) <= 0).all()
    assert (samples["mask"][..., 0] == 1).all()
    assert (np.diff(samples["types"]) >= 0).all()
    assert set(np.unique(samples["mask"])) == set(np.unique(samples["types"])) == {0, 1}
    assert len(np.unique(samples["mask"].sum(axis=2))) > 2  # several lengths


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("positive", np.log),
        ("positive", np.sqrt),
        ("between 0 and 1", np.arctanh),
        ("above 1", np.arccosh),
        ("negative", lambda x: np.log(-x)),
    ],
)
def test_values_for_functions_that_are_not_defined_everywhere(name, function):
    values = make_inputs([TensorSpec("x", "float32", (1, 400))], None, change=DISTRIBUTIONS[name]).samples["x"]
    assert values.dtype == np.float32
    assert np.isfinite(function(values)).all()
    assert values.std() > 0.05


def test_quantized_inputs_take_other_values_too_and_more_samples():
    spec = TensorSpec("x", "int8", (1, 400), Quantization((0.1,), (-128,)))
    usual = make_inputs([spec], None, least=20).samples["x"]
    small = make_inputs([spec], None, change=DISTRIBUTIONS["small"], least=20).samples["x"]
    assert len(usual) == len(small) == 20
    assert usual.max() == pytest.approx(25.5)
    np.testing.assert_allclose(small, usual / 10, rtol=1e-6)
