"""The sizes in which a model with free axes is proven: plausible, and small enough for the memory."""

from __future__ import annotations

import math

from converters.calibration.sizes import candidate_sizes, other_sizes
from runtimes.arrays import Arrays
from runtimes.artifact import TensorSpec

# A voice detector: the batch leads one input and stands second in its state.
DETECTOR = (TensorSpec("input", "float32", ("batch", "sequence")), TensorSpec("state", "float32", (2, "batch", 128)))


def largest(inputs, sizes):
    return max(math.prod(sizes.get(size, size) for size in one.shape) for one in inputs)


def test_a_batch_that_another_input_has_elsewhere_stays_small():
    first = next(candidate_sizes(DETECTOR))
    assert first["batch"] == 2
    assert first["sequence"] > 8
    batches = [sizes["batch"] for sizes in candidate_sizes(DETECTOR)]
    assert batches == sorted(batches)
    assert max(batches) >= 16  # a model that has its length there gets one


def test_no_candidate_is_larger_than_a_machine_holds():
    inputs = (TensorSpec("x", "float32", (1, "a", "b", "c")),)
    tried = list(candidate_sizes(inputs))
    assert len(tried) > 2
    assert all(largest(inputs, sizes) <= 2**22 for sizes in tried)
    assert max(largest(DETECTOR, sizes) for sizes in candidate_sizes(DETECTOR)) <= 2**22


def test_a_model_that_is_large_in_every_size_still_gets_its_smallest():
    inputs = (TensorSpec("x", "float32", (1, 4096, 4096, "a")),)
    assert next(candidate_sizes(inputs)) == {"a": 16}


def test_the_second_sizes_differ_in_every_axis():
    import numpy as np

    known: Arrays = {"input": np.zeros((8, 2, 24), np.float32), "state": np.zeros((8, 2, 2, 128), np.float32)}
    second = next(other_sizes(DETECTOR, known))
    assert second["batch"] != 2
    assert second["sequence"] != 24
