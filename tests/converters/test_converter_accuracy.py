"""The trained MobileNetV2 through every step: how its answers to the 100 evaluation pictures fare.

Measured (CPU with VNNI; int8 calibrated on the 100 calibration pictures; float Keras is right on 87):

    result             same top-1   right   lost   largest difference of a probability
    ONNX fp32             100         87      0     3e-6
    TFLite fp32           100         87      0     6e-6
    OpenVINO fp32         100         87      0     3e-6
    TFLite fp16           100         87      0     0.034
    OpenVINO fp16         100         87      0     0.034
    TFLite w8              99         87      0     0.036
    TFLite int8            99         87      0     0.14
    OpenVINO int8          99         88      0     0.14
    ONNX int8              98         88      0     0.16
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.library_calls import no_telemetry, suppress_output
from converters.options import ConvertOptions
from converters.registry import all_converters
from edge.table import mobilenet_v2
from edge.table.mobilenet_v2.weights import WEIGHTS_FILE
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize
from tests.real_data import real_data

pytestmark = pytest.mark.data

STEPS = {step.id: step for step in all_converters()}


class Answers(NamedTuple):
    """Probabilities of the 1001 classes for each picture, and the classes that are right."""

    probabilities: Array
    truth: Array

    def agreement(self, source: Answers) -> int:
        return int((self._top == source._top).sum())

    def lost(self, source: Answers) -> int:
        return int(((source._top == self.truth) & (self._top != self.truth)).sum())

    def difference(self, source: Answers) -> float:
        return float(np.abs(self.probabilities - source.probabilities).max())

    @property
    def _top(self) -> Array:
        return self.probabilities.argmax(axis=1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the Keras model, and what the steps have made of it so far."""
    file = real_data(WEIGHTS_FILE)
    with suppress_output():
        no_telemetry()
        for library in ("tensorflow", "keras", "tf2onnx", "onnxruntime", "openvino", "nncf", "ai_edge_litert", "PIL"):
            pytest.importorskip(library)
    folder = tmp_path_factory.mktemp("models")
    weights = mobilenet_v2.find_weights(file)
    mobilenet_v2.build(folder, weights, "keras")
    return folder


@pytest.fixture(scope="module")
def source(models: Path) -> Answers:
    found = _answers(models / "mobilenet_v2.keras")
    assert int((found.probabilities.argmax(axis=1) == found.truth).sum()) == 87
    return found


@cache
def _pictures(part: str) -> tuple[Array, Array]:
    """Inputs [n, 1, 224, 224, 3] and classes (of 1001) of the pictures in a folder of the data."""
    from PIL import Image

    files = sorted(real_data(f"imagenet/{part}").glob("*.jpg"))
    rows = []
    for file in files:
        with Image.open(file) as opened:
            picture = opened.convert("RGB")
        factor = 256 / min(picture.size)
        width, height = (round(side * factor) for side in picture.size)
        left, top = (width - 224) // 2, (height - 224) // 2
        resized = picture.resize((width, height), Image.Resampling.BILINEAR)
        rows.append(np.asarray(resized.crop((left, top, left + 224, top + 224)), np.float32))
    with real_data("imagenet/labels.csv").open(encoding="utf-8") as stream:
        classes = {row["file"]: int(row["class_index_of_1000"]) + 1 for row in csv.DictReader(stream)}
    return np.stack(rows)[:, np.newaxis] / 127.5 - 1, np.array([classes[f"{part}/{file.name}"] for file in files])


def _answers(model: Path) -> Answers:
    artifact = Artifact.open(model)
    pictures, truth = _pictures("evaluation")
    rows = []
    with suppress_output(), for_format(artifact.manifest.format).open(artifact, RunOptions()) as session:
        (taken,), (given,) = session.inputs, session.outputs
        for picture in pictures:
            answer = session.run({taken.name: quantize(picture, taken)})[given.name]
            rows.append(dequantize(answer, given.quantization).reshape(-1))
    return Answers(np.stack(rows), truth)


def _converted(models: Path, name: str, precision: str) -> Answers:
    step = STEPS[name]
    if step.source == "onnx" and not (models / "mobilenet_v2.onnx").exists():
        STEPS["keras_to_onnx"].convert(models / "mobilenet_v2.keras", models, ConvertOptions(), None)
    out = models / name / precision
    out.mkdir(parents=True)
    calibration = Calibration({"image": _pictures("calibration")[0]}) if precision == "int8" else None
    suffix = {"keras": ".keras", "onnx": ".onnx"}[step.source]
    made = step.convert(models / f"mobilenet_v2{suffix}", out, ConvertOptions(precision=precision), calibration).model
    return _answers(made)


@pytest.mark.parametrize("name", ["keras_to_onnx", "keras_to_tflite", "onnx_to_openvino"])
def test_fp32_answers_as_keras_does(name: str, models: Path, source: Answers) -> None:
    found = _converted(models, name, "fp32")
    assert found.agreement(source) == 100
    assert found.difference(source) < 1e-4


@pytest.mark.parametrize("name", ["keras_to_tflite", "onnx_to_openvino"])
def test_fp16_has_the_same_top_1_everywhere(name: str, models: Path, source: Answers) -> None:
    assert _converted(models, name, "fp16").agreement(source) == 100


def test_int8_weights_alone_lose_nothing(models: Path, source: Answers) -> None:
    found = _converted(models, "keras_to_tflite", "w8")
    assert (found.agreement(source) >= 98, found.lost(source)) == (True, 0)


@pytest.mark.parametrize(
    ("name", "agreeing"), [("keras_to_tflite", 97), ("onnx_to_openvino", 95), ("onnx_to_onnx", 95)]
)
def test_int8_loses_at_most_two_right_answers(name: str, agreeing: int, models: Path, source: Answers) -> None:
    found = _converted(models, name, "int8")
    assert found.agreement(source) >= agreeing
    assert found.lost(source) <= 2
