"""TFLite for the browser: a state is proven over a sequence in which its answers vary, and so are changed dtypes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from converters.pipeline.verification import SELFCHECK_SAMPLES, selfcheck_count, sequence_length
from converters.tflite import end_dtypes
from runtimes.arrays import save_arrays
from runtimes.artifact import Artifact
from runtimes.errors import ProofError
from tests.npm import need_engines

pytestmark = pytest.mark.data
INPUT = "serving_default_input_audio:0"
STEPS = 53


def _converted(model: Path, folder: Path, samples: Path | None = None) -> Artifact:
    need_engines()
    (folder / "out").mkdir()
    convert(
        ConvertRequest(
            source=model,
            steps=("tflite_to_browser",),
            format="browser",
            options=ConvertOptions(precision="int8"),
            out=folder / "out",
            scratch=folder / "scratch",
            samples=samples,
        ),
        lambda _: None,
    )
    return Artifact.open(folder / "out")


def test_a_wake_word_that_made_up_steps_hardly_move_is_proven_with_more_of_them(data, tmp_path) -> None:
    made = _converted(data / "real" / "okay_nabu.tflite", tmp_path)
    assert made.manifest.selfcheck is not None
    assert made.manifest.selfcheck.stateful
    (spec,) = made.manifest.inputs
    assert (spec.name, spec.dtype) == (INPUT, "uint8")
    inputs, outputs = made.selfcheck()
    (answers,) = outputs.values()
    assert len(inputs[INPUT]) > SELFCHECK_SAMPLES
    assert answers[-1] != answers[0]


def test_given_steps_stay_in_their_order_and_none_is_left_out(data, tmp_path) -> None:
    steps = np.linspace(0, 26, STEPS * 120).reshape(STEPS, 1, 3, 40).astype(np.float32)
    save_arrays(tmp_path / "steps.npz", {INPUT: steps})
    made = _converted(data / "real" / "okay_nabu.tflite", tmp_path, tmp_path / "steps.npz")
    inputs, _ = made.selfcheck()
    (spec,) = made.manifest.inputs
    assert spec.quantization is not None
    real = (inputs[INPUT].astype(np.float64) - spec.quantization.zero_points[0]) * spec.quantization.scales[0]
    np.testing.assert_allclose(real, steps[: len(real)], atol=0.052)


def test_a_zero_point_that_leaves_out_negative_numbers_is_found(data, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(end_dtypes, "_SAME_STEPS", {"int8": ("uint8", 47)})
    with pytest.raises(ProofError):
        _converted(data / "real" / "edgetpu" / "bright_128x128.tflite", tmp_path)


def test_a_sequence_for_the_self_check_lasts_until_the_answers_move() -> None:
    late = np.zeros((60, 1, 1), np.float32)
    late[50:] = 0.4
    late[55:] = 0.9
    assert sequence_length({"y": late}) == 56
    assert sequence_length({"y": np.arange(60.0).reshape(60, 1)}) == 31
    assert sequence_length({"y": np.zeros((60, 1))}) == SELFCHECK_SAMPLES
    feeds = {"x": np.zeros((60, 100_000), np.float32)}
    assert [selfcheck_count(feeds, limit, 56) for limit in (None, 30_000_000, 1)] == [10, 56, 2]
