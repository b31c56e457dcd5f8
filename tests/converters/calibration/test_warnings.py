"""What a classifier's answers reveal about its calibration data."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.calibration.warnings import check_calibration
from runtimes.artifact import OutputMeaning, TensorSpec
from runtimes.tensors import softmax

LOGIT, PROBABILITY = OutputMeaning("logit"), OutputMeaning("probability")


class ByColor:
    """Answers which channel of a picture is the strongest, the surer the redder it is."""

    inputs = (TensorSpec("x", "float32", (1, 4, 4, 3)),)
    outputs = (TensorSpec("y", "float32", (1, 3)),)

    def __init__(self, layout: str, kind: str) -> None:
        self.axes = (1, 2) if layout == "NHWC" else (2, 3)
        self.kind = kind

    def run(self, feeds):
        means = feeds["x"].mean(self.axes)
        logits = means * np.array([8.0, 1.0, 1.0])
        return {"y": logits.astype(np.float32) if self.kind == "logit" else softmax(logits)}


def told(colors: list[list[float]], meaning: OutputMeaning | None = LOGIT, layout: str = "NHWC") -> str:
    pictures = np.broadcast_to(np.array(colors, np.float32)[:, None, None, None], (len(colors), 1, 4, 4, 3))
    values = pictures if layout == "NHWC" else pictures.transpose(0, 1, 4, 2, 3)
    session = ByColor(layout, meaning.kind if meaning else "logit")
    samples = Calibration({"x": np.ascontiguousarray(values)})
    answers = {"y": np.stack([session.run({"x": one})["y"] for one in samples.samples["x"]])}
    return "\n".join(check_calibration(session, samples, answers, meaning))


RED, GREEN, BLUE = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]


@pytest.mark.parametrize("meaning", [LOGIT, PROBABILITY])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_pictures_with_their_colors_swapped_are_doubted(meaning, layout):
    words = told([BLUE] * 5 + [GREEN], meaning, layout)
    assert "more confident about the calibration pictures with red and blue swapped" in words
    assert "(mean top probability 0.93, and 0.58 unswapped)" in words
    assert told([RED] * 5 + [GREEN], meaning, layout) == ""


def test_samples_of_one_class_are_doubted():
    assert "all 6 held-out calibration samples are of one class to the source (row 0" in told([RED] * 6)


def test_little_is_said_of_few_samples_and_nothing_of_what_is_no_classifier():
    assert told([RED] * 4) == ""
    assert told([BLUE] * 6, None) == ""
