"""The manifest: it reads back what was written, equal content gives equal bytes, and every wrong field is named."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from runtimes.artifact.manifest import Manifest, OutputMeaning, Preprocess, Quantization, SelfCheck, TensorSpec
from runtimes.errors import InputError

PREPROCESS = Preprocess("shorter_side", 256, (224, 224), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
MANIFEST = Manifest(
    name="tiny",
    format="tflite",
    precision="int8",
    model="tiny.tflite",
    files={"tiny.tflite": "0" * 64},
    inputs=(TensorSpec("x", "uint8", ("batch", 4), Quantization((0.5,), (127,))),),
    outputs=(TensorSpec("y", "int8", (1, 2), Quantization((0.5, 0.25), (0, -1), 1)),),
    preprocess=PREPROCESS,
    output=OutputMeaning("probability", 1, "labels.txt"),
    selfcheck=SelfCheck("max_abs", 1e-4, "pictures"),
    source={"framework": "keras"},
    conversion={"steps": ["keras_to_tflite"]},
    proof={"passed": True},
)


def changed(path, value):
    document = json.loads(MANIFEST.to_json())
    target = document
    *parents, last = path.split(".")
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    target[last] = value
    return json.dumps(document)


def test_a_manifest_comes_back_as_it_was_written():
    assert Manifest.from_json(MANIFEST.to_json(), "manifest.json") == MANIFEST


def test_a_manifest_without_its_optional_parts_comes_back():
    bare = Manifest("tiny", "onnx", "fp32", "tiny.onnx")
    assert Manifest.from_json(bare.to_json(), "manifest.json") == bare


def test_the_same_content_gives_the_same_bytes():
    reordered = replace(MANIFEST, files=dict(reversed(list(MANIFEST.files.items()))))
    assert reordered.to_json() == MANIFEST.to_json()
    assert MANIFEST.to_json().endswith("}\n")


@pytest.mark.parametrize(
    ("path", "value", "last_error"),
    [
        ("schema", 2, "'schema' is 2; this version of edge reads schema 1"),
        ("name", 3, "'name' is 3, not text"),
        ("inputs", {}, "'inputs' is an object, not a list"),
        ("inputs.0.shape", [1, -1], r"'inputs[0].shape' is [1, -1], not a list of sizes and names"),
        ("inputs.0.shape", [True], "'inputs[0].shape'"),
        ("inputs.0.shape", 4, "'inputs[0].shape' is 4"),
        ("inputs.0.dtype", None, "missing value in 'inputs[0].dtype'"),
        ("inputs.0.quantization.scales", [], "'inputs[0].quantization.scales' has 0 values for 1 zero points"),
        ("outputs.0.quantization.zero_points", [1], "has 2 values for 1 zero points"),
        ("preprocess.resize", "squash", "'preprocess.resize' is 'squash', not one of shorter_side, stretch"),
        ("preprocess.color", "GBR", "not one of RGB, BGR"),
        ("preprocess.crop", [224], "not a height and a width"),
        ("preprocess.crop", [0, 224], "not a height and a width"),
        ("preprocess.mean", [1.0], "need one value for each of three channels"),
        ("output.kind", "score", "'output.kind' is 'score', not probability or logit"),
        ("selfcheck.tolerance", "small", "'selfcheck.tolerance' is 'small', not a number"),
        ("files", [], "'files' is a list, not an object"),
    ],
)
def test_a_wrong_value_is_named(path, value, last_error):
    with pytest.raises(InputError) as caught:
        Manifest.from_json(changed(path, value), "manifest.json")
    assert last_error in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("text", ["", "{", "[]", "nonsense", "[" * 100000])
def test_what_is_no_json_object_is_refused(text):
    with pytest.raises(InputError, match=r"^m\.json"):
        Manifest.from_json(text, "m.json")


def test_a_number_that_json_has_not_is_not_written():
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(MANIFEST, proof={"error": float("nan")}).to_json()
