"""The trained MobileNetV2 as a PyTorch program, on every way on from it: its answers to the 100 evaluation pictures.

Measured (their weights lie on an int8 grid already, so w8 loses nothing here):

    result                 same top-1   largest difference of a probability
    ONNX fp32, opset 13       100         3e-6
    ONNX fp32, opset 17       100         3e-6
    ONNX fp32, opset 20       100         3e-6
    ONNX fp16                 100         0.034
    ONNX w8                   100         3e-6
    OpenVINO fp32             100         2e-6
    OpenVINO fp16             100         0.034
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.library_calls import suppress_output
from converters.options import ConvertOptions
from converters.registry import all_converters
from edge.table import mobilenet_v2
from edge.table.mobilenet_v2.weights import WEIGHTS_FILE
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.registry import for_format
from runtimes.session import RunOptions

pytestmark = pytest.mark.data

STEPS = {step.id: step for step in all_converters()}
# Step, precision, how many of the 100 have the same top-1.
CASES = [
    ("onnx_to_openvino", "fp32", 100),
    ("onnx_to_openvino", "fp16", 100),
    ("onnx_to_onnx", "fp16", 100),
    ("onnx_to_onnx", "w8", 98),
]


@pytest.fixture(scope="module")
def pictures(request):
    """Inputs [100, 1, 3, 224, 224]."""
    image = pytest.importorskip("PIL.Image")
    data = request.getfixturevalue("data")
    rows = []
    for file in sorted((data / "imagenet" / "evaluation").glob("*.jpg")):
        with image.open(file) as opened:
            picture = opened.convert("RGB")
        factor = 256 / min(picture.size)
        width, height = (round(side * factor) for side in picture.size)
        left, top = (width - 224) // 2, (height - 224) // 2
        resized = picture.resize((width, height), image.Resampling.BILINEAR)
        rows.append(np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32) / 127.5 - 1)
    assert len(rows) == 100
    return np.stack(rows).transpose(0, 3, 1, 2)[:, np.newaxis]


@pytest.fixture(scope="module")
def program(data, tmp_path_factory) -> Path:
    for library in ("torch", "onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(library)
    with suppress_output():
        weights = mobilenet_v2.find_weights(data / WEIGHTS_FILE)
        return mobilenet_v2.build(tmp_path_factory.mktemp("torch"), weights, "torch")


@pytest.fixture(scope="module")
def truth(program, pictures) -> Array:
    return answers(program, pictures)


def answers(model: Path, pictures: Array) -> Array:
    """Probabilities [100, 1001]."""
    artifact = Artifact.open(model)
    with suppress_output(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        (taken,), (given,) = session.inputs, session.outputs
        return np.concatenate([session.run({taken.name: picture})[given.name] for picture in pictures])


@pytest.mark.parametrize("opset", [13, 17, 20])
def test_onnx_answers_as_pytorch_does(program, pictures, truth, tmp_path, opset):
    made = STEPS["pt2_to_onnx"].convert(program, tmp_path, ConvertOptions(opset=opset), None).model
    given = answers(made, pictures)
    assert (given.argmax(axis=1) == truth.argmax(axis=1)).all()
    assert np.abs(given - truth).max() < 1e-4


@pytest.fixture(scope="module")
def middle(program, tmp_path_factory) -> Path:
    return STEPS["pt2_to_onnx"].convert(program, tmp_path_factory.mktemp("onnx"), ConvertOptions(), None).model


@pytest.mark.parametrize(("name", "precision", "agreeing"), CASES)
def test_what_is_made_of_that_onnx(middle, pictures, truth, tmp_path, name, precision, agreeing):
    for requirement in STEPS[name].requires:
        pytest.importorskip(requirement.module)
    given = answers(STEPS[name].convert(middle, tmp_path, ConvertOptions(precision=precision), None).model, pictures)
    assert (given.argmax(axis=1) == truth.argmax(axis=1)).sum() >= agreeing
