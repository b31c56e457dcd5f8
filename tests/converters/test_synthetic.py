"""Seeded inputs on which a wrong conversion shows."""

from __future__ import annotations

import numpy as np
import pytest

from converters.synthetic import SAMPLES, synthetic, value_range
from runtimes.artifact import Preprocess, TensorSpec
from runtimes.manifest import Quantization


@pytest.mark.parametrize("shape", [(1, 28, 28, 3), (1, 3, 28, 28), ("batch", 28, 28, 1)])
def test_a_picture_is_patches_from_minus_one_to_one(shape):
    values = synthetic([TensorSpec("x", "float32", shape)], None).samples["x"]
    assert values.shape == (SAMPLES, 1, *shape[1:])
    assert values.dtype == np.float32
    assert values.min() == -1
    assert values.max() == 1
    # Neighbours are alike and channels are not: that is what makes a swap of either show.
    rows = values[:, 0] if shape[-1] != 28 else values[:, 0].transpose(0, 2, 3, 1)
    assert np.abs(np.diff(rows, axis=1)).mean() < 0.5 * np.abs(rows - rows[:, ::-1, ::-1]).mean()


def test_a_model_that_rescales_pixels_gets_pixels():
    samples = synthetic([TensorSpec("x", "float32", (1, 28, 28, 3))], None, (0.0, 255.0))
    assert value_range(samples) == (0, 255)


def test_a_quantised_picture_covers_its_range():
    spec = TensorSpec("x", "uint8", (1, 28, 28, 3), Quantization((0.5,), (100,)))
    values = synthetic([spec], None).samples["x"]
    assert (values.min(), values.max()) == (-50.0, 77.5)


def test_a_known_way_is_gone():
    way = Preprocess("stretch", 28, (28, 20), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    values = synthetic([TensorSpec("x", "float32", (1, 28, 20, 3))], way).samples["x"]
    assert (values.min(), values.max()) == (0, 255)


def test_other_inputs_are_values_of_rising_strength():
    specs = [TensorSpec("x", "float32", (1, 400)), TensorSpec("ids", "int64", (1, 16))]
    samples = synthetic(specs, None).samples
    strengths = samples["x"].std(axis=(1, 2))
    assert np.allclose(strengths, 0.25 * np.arange(1, SAMPLES + 1), rtol=0.2)
    assert set(np.unique(samples["ids"])) <= {0, 1}


def test_the_same_every_time():
    spec = TensorSpec("x", "float32", (1, 28, 28, 3))
    assert np.array_equal(synthetic([spec], None).samples["x"], synthetic([spec], None).samples["x"])
