"""Both faces of a real picture are found by a real detector and by its conversions, and the boxes agree."""

from __future__ import annotations

from pathlib import Path

import pytest

import edge
from edge.cli import main
from runtimes.tasks.detection import DetectionTask


@pytest.fixture
def real(data) -> Path:
    return data / "real"


@pytest.fixture
def calibration(real, tmp_path) -> Path:
    """Parts of the picture: the faces in other sizes and places, some mirrored."""
    pillow = pytest.importorskip("PIL.Image")
    from PIL import ImageOps

    (tmp_path / "calibration").mkdir()
    with pillow.open(real / "face.jpg") as picture:
        for number in range(24):
            left, top, side = 15 * (number % 12), 10 * (number % 7), 330 - 8 * (number % 9)
            part = picture.crop((left, top, left + side, min(picture.height, top + side)))
            (ImageOps.mirror(part) if number % 2 else part).save(tmp_path / "calibration" / f"{number:02}.png")
    return tmp_path / "calibration"


@pytest.mark.data
@pytest.mark.parametrize("target", ["onnx fp32", "openvino fp32", "tflite w8", "tflite int8", "onnx int8"])
def test_both_faces_are_found_by_a_conversion(real, calibration, tmp_path, target):
    source, out = real / "face_detection_short_range.tflite", tmp_path / "artifact"
    words = ["--to", target.split()[0], "--precision", target.split()[1], "--out", str(out)]
    assert main(["convert", str(source), *words, "--calibration", str(calibration)]) == 0
    with edge.open(source) as model, edge.open(out) as converted:
        expected, found = (one.predict(real / "face.jpg") for one in (model, converted))
    assert len(expected.boxes) == len(found.boxes) == 2
    agreement = DetectionTask().compare(expected, found)
    assert agreement.agrees, agreement.message
