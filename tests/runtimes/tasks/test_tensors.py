"""The raw outputs of any model."""

from __future__ import annotations

import json

import numpy as np
import pytest

from runtimes.artifact import TensorSpec
from runtimes.model_files.facts import ModelFacts
from runtimes.tasks.tensors import Tensors, TensorsTask
from runtimes.testing.task_contract import TaskContract, TaskExample

MAP = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)


class TestContract(TaskContract):
    task = TensorsTask()
    examples = (
        TaskExample(ModelFacts("model.onnx", "onnx"), {"map": MAP}, {"map": -MAP}),
        TaskExample(ModelFacts("model.onnx", "onnx"), {"n": np.int64([3])}, {"n": np.int64([5])}),
    )


def test_each_output_is_summed_up_by_name():
    arrays = {"a": np.float32([[1, 2], [3, 6]]), "n": np.int64(7), "b": np.array([True, False])}
    assert Tensors(arrays).to_json() == {
        "a": {"shape": [2, 2], "dtype": "float32", "min": 1.0, "max": 6.0, "mean": 3.0},
        "n": {"shape": [], "dtype": "int64", "min": 7, "max": 7, "mean": 7.0},
        "b": {"shape": [2], "dtype": "bool", "min": False, "max": True, "mean": 0.5},
    }


def test_what_is_not_finite_is_counted_and_never_in_the_json():
    told = Tensors({"a": np.float32([1, np.nan, np.inf]), "e": np.empty((0, 4), np.float32)}).to_json()
    assert told["a"] == {"shape": [3], "dtype": "float32", "min": 1.0, "max": 1.0, "mean": 1.0, "not_finite": 2}
    assert told["e"] == {"shape": [0, 4], "dtype": "float32", "min": None, "max": None, "mean": None}
    json.dumps(told, allow_nan=False)


def test_large_halves_have_a_finite_mean():
    assert Tensors({"a": np.full(100, 60_000, np.float16)}).to_json()["a"]["mean"] == 60_000 // 32 * 32


@pytest.mark.parametrize(
    ("one", "other", "agrees"),
    [
        ({"a": MAP}, {"b": MAP}, False),
        ({"a": MAP}, {"a": MAP[0]}, False),
        ({"a": MAP}, {"a": MAP.astype(np.float64)}, False),
        ({"a": MAP}, {"a": MAP + np.float32(0.05)}, True),
        ({"a": MAP}, {"a": MAP + np.float32(0.1)}, False),
        ({"a": np.float32([1, np.nan])}, {"a": np.float32([1, np.nan])}, True),
        ({"a": np.float32([1, np.nan])}, {"a": np.float32([1, 2])}, False),
        ({"a": np.array([True])}, {"a": np.array([False])}, False),
        ({"a": np.float32([5, 5])}, {"a": np.float32([5, 5.01])}, True),
        ({}, {}, True),
    ],
)
def test_tensors_agree_within_a_share_of_their_range(one, other, agrees):
    assert TensorsTask().compare(Tensors(one), Tensors(other)).agrees is agrees


def test_two_pictures_as_inputs_are_no_batch():
    pictures = tuple(TensorSpec(name, "float32", ("batch", 24, 24, 3)) for name in ("before", "after"))
    assert ModelFacts("change.keras", "keras", inputs=pictures).batch == 1
    assert ModelFacts("one.keras", "keras", inputs=(TensorSpec("x", "float32", (4, 24, 24, 3)),)).batch == 4
