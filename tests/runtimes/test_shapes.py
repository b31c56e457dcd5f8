"""Sizes for free axes, as users write them."""

from __future__ import annotations

import re

import pytest

from runtimes.artifact import TensorSpec
from runtimes.errors import UsageError
from runtimes.shapes import free_axes, shape_texts, suggestion, with_shapes

PICTURE = TensorSpec("serving_default_x:0", "float32", ("batch", 3, "height", "width"))
IDS, MASK = (TensorSpec(name, "int64", ("batch", "length")) for name in ("ids", "mask"))


def shapes(*specs):
    return [spec.shape for spec in specs]


def test_a_bare_size_for_one_input_and_names_that_other_tools_write():
    for text in ("1x3x480x640", "serving_default_x:0=1x3x480x640", "serving_default_x:0=1x3x480x640:float32"):
        assert shapes(*with_shapes([PICTURE], [text])) == [(1, 3, 480, 640)]
    assert with_shapes([PICTURE], []) == (PICTURE,)


def test_a_scalar_has_no_sizes():
    specs = [TensorSpec("x", "float32", ("n", 3)), TensorSpec("rate", "int64", ())]
    assert [spec.shape for spec in with_shapes(specs, ["x=2x3", "rate=:int64"])] == [(2, 3), ()]


def test_axes_of_one_name_have_one_size():
    assert shapes(*with_shapes([IDS, MASK], ["ids=1x128"])) == [(1, 128), (1, 128)]
    unnamed = TensorSpec("a", "float32", (1, "dim1")), TensorSpec("b", "float32", (1, "dim1"))
    assert shapes(*with_shapes(unnamed, ["a=1x5"])) == [(1, 5), (1, "dim1")]
    assert shapes(*with_shapes(unnamed, ["a=1x5", "b=1x6"])) == [(1, 5), (1, 6)]


@pytest.mark.parametrize(
    ("specs", "given", "message", "hint"),
    [
        ([PICTURE], ["y=1x3x4x4"], "the model has no input 'y'", "its inputs: serving_default_x:0"),
        ([PICTURE], ["1x3x4"], r"--shape 1x3x4 has 3 sizes, not 4", "give every axis"),
        ([PICTURE], ["1x4x4x4"], r"contradicts its fixed axis 1", "only axes with a name are free"),
        ([PICTURE], ["1x3x4x4:int64"], "float32, not int64", "leave the type out"),
        ([PICTURE], ["1x3x?x4"], r"--shape 1x3x\?x4 cannot be understood", "write \\[NAME=\\]SIZES"),
        ([PICTURE], ["1x3x0x4"], "sizes are 1 or more", ""),
        ([PICTURE], ["1x3x99999x99999"], "at most 1,073,741,824 values", ""),
        ([IDS, MASK], ["1x128"], r"the model takes 2 inputs \(ids, mask\)", "name one: --shape ids=1x128"),
        ([IDS, MASK], ["ids=1x128", "ids=1x64"], "names the input 'ids' twice", "one shape for each input"),
        ([IDS, MASK], ["ids=1x128", "mask=1x64"], "the axis 'length' is 128 and 64", "give it one size"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_in_one_line(specs, given, message, hint):
    with pytest.raises(UsageError, match=message) as refusal:
        with_shapes(specs, given)
    assert "\n" not in refusal.value.message
    assert re.search(hint, refusal.value.hint)


def test_free_axes_are_those_beside_the_leading_one():
    assert free_axes(PICTURE) == [2, 3]
    assert free_axes(TensorSpec("x", "float32", ("batch", 3))) == free_axes(TensorSpec("t", "float32", ())) == []


def test_sizes_by_name_are_written_as_on_the_command_line():
    assert shape_texts({"x": (1, 3), "t": [4]}) == ("x=1x3", "t=4")
    assert shape_texts(["x=1x3"]) == ("x=1x3",)


@pytest.mark.parametrize(
    ("dtype", "shape", "sizes"),
    [
        ("float32", ("batch", 3, "height", "width"), "1x3x224x224"),
        ("uint8", ("batch", "height", "width", 3), "1x224x224x3"),
        ("int64", ("batch", "length"), "1x128"),
        ("int32", (1, "length"), "1x128"),
        ("float32", ("batch", "samples"), "1x16000"),
        ("float32", ("batch", 1, "samples"), "1x1x16000"),
        ("float32", ("batch", "steps", 80), "1x128x80"),
        ("float32", ("batch", 80, "steps"), "1x80x128"),
        ("float32", (1, "steps", 80), "1x128x80"),
        ("float32", (2, "batch", 128), "2x1x128"),
    ],
)
def test_a_suggested_size_is_one_of_the_inputs_kind(dtype, shape, sizes):
    spec = TensorSpec("x", dtype, shape)
    assert suggestion(spec, {}) == f"--shape x={sizes}"
    assert not free_axes(with_shapes([spec], [f"x={sizes}"])[0])


def test_the_size_of_pictures_in_the_metadata_comes_first():
    assert suggestion(PICTURE, {"imgsz": "[480, 640]"}).endswith("=1x3x480x640")
    assert suggestion(IDS, {"imgsz": "[480, 640]"}) == "--shape ids=1x128"
