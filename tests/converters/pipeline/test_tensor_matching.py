"""Tensors of the source and of the result are paired."""

from __future__ import annotations

import numpy as np
import pytest

from converters.pipeline.tensor_matching import pair_tensors
from runtimes.artifact import TensorSpec
from runtimes.errors import EngineError


def spec(name: str, *shape) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def test_by_name_where_both_use_the_same():
    a, b = spec("a", 1, 2), spec("b", 1, 2)
    assert [(pair.source.name, pair.other.name) for pair in pair_tensors([a, b], [b, a], "input")] == [
        ("a", "a"),
        ("b", "b"),
    ]


def test_in_order_where_they_were_renamed():
    pairs = pair_tensors([spec("a", 1, 2), spec("b", 1, 3)], [spec("x", 1, 2), spec("y", 1, 3)], "input")
    assert [pair.other.name for pair in pairs] == ["x", "y"]


@pytest.mark.parametrize(("source", "other"), [((1, 4, 6, 3), (1, 3, 4, 6)), (("n", 3, 4, 6), (1, 4, 6, 3))])
def test_turned_axes_are_found_and_turned(source, other):
    (pair,) = pair_tensors([spec("a", *source)], [spec("a", *other)], "input")
    fixed = tuple(1 if isinstance(size, str) else size for size in source)
    values = np.random.default_rng(0).random((5, *fixed))
    turned = pair.to_other(values)
    assert turned.shape == (5, *other)
    assert np.array_equal(turned[2].transpose(*np.argsort(pair.axes)), values[2])


def test_outputs_may_have_more_axes_of_one():
    (pair,) = pair_tensors([spec("a", 1, 10)], [spec("a", 1, 1, 1, 10)], "output")
    assert pair.axes is None


def test_an_input_that_the_result_drops_is_left_out():
    (pair,) = pair_tensors([spec("a", 1, 2), spec("b", 1, 2)], [spec("b", 1, 2)], "input")
    assert (pair.source.name, pair.other.name) == ("b", "b")
    with pytest.raises(EngineError, match="has 2 outputs, the result 1"):
        pair_tensors([spec("a", 1, 2), spec("b", 1, 2)], [spec("b", 1, 2)], "output")


def test_a_size_that_one_of_them_leaves_free_is_that_of_the_other():
    (pair,) = pair_tensors([spec("a", 3, "n")], [spec("a", "batch", 4)], "output")
    assert (pair.source.shape, pair.other.shape, pair.axes) == ((3, "n"), (3, 4), None)
    with pytest.raises(EngineError, match="changed the model"):
        pair_tensors([spec("a", 3, "n")], [spec("a", 4, "batch")], "output")


@pytest.mark.parametrize(
    ("source", "other", "kind", "words"),
    [
        ([(1, 2)], [], "input", "has 1 inputs, the result 0"),
        ([(1, 2)], [(1, 3)], "output", r"\[1, 2\], in the result \[1, 3\]"),
        ([(1, 10)], [(1, 1, 1, 10)], "input", "input 't0'"),
    ],
)
def test_what_does_not_fit_has_been_changed(source, other, kind, words):
    names = [[spec(f"t{i}", *shape) for i, shape in enumerate(shapes)] for shapes in (source, other)]
    with pytest.raises(EngineError, match=words):
        pair_tensors(*names, kind)
