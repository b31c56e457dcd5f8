"""An artifact is compared with its stored answers, in a session that is plain numpy."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes import artifact as artifacts
from runtimes.artifact import Artifact, Manifest, SelfCheck, TensorSpec
from runtimes.artifact.manifest import Quantization
from runtimes.errors import InputError
from runtimes.registry import tensor_engine
from runtimes.session import CheckedSession, RunOptions
from runtimes.verification.selfcheck import answers, check, judge, verify

INPUT = TensorSpec("x", "float32", (1, 3))
OUTPUT = TensorSpec("y", "uint8", (1, 3), Quantization((0.5,), (10,)))
SAMPLES = {"x": np.arange(12, dtype=np.float32).reshape(4, 1, 3)}
RIGHT = {"y": SAMPLES["x"] * 2}


class _Doubling(CheckedSession):
    """Answers twice its input, quantized in steps of 0.5 from zero point 10; `factor` 2 is right."""

    def __init__(self, factor=2.0, inputs=(INPUT,)):
        super().__init__(inputs, (OUTPUT,))
        self._factor = factor

    def _run(self, feeds):
        (values,) = feeds.values()
        return {"y": (values * self._factor / 0.5 + 10).astype(np.uint8)}


def _artifact(folder, metric="max_abs", tolerance=0.1, inputs=None, outputs=None):
    (folder / "model.null").write_bytes(b"0")
    manifest = Manifest("m", "null", "int8", "model.null", selfcheck=SelfCheck(metric, tolerance, "synthetic"))
    return artifacts.write(folder, manifest, inputs or SAMPLES, outputs or RIGHT)


def test_right_answers_pass(tmp_path):
    verdict = check(_artifact(tmp_path), _Doubling())
    assert verdict.passed
    assert verdict.metrics["max_abs"] == 0
    assert verdict.message == "max_abs 0, at most 0.1"


def test_wrong_answers_do_not(tmp_path):
    verdict = check(_artifact(tmp_path), _Doubling(factor=2.5))
    assert not verdict.passed
    assert verdict.metrics["max_abs"] == pytest.approx(5.5)
    assert verdict.message == "max_abs 5.5, at most 0.1"


def test_the_manifest_chooses_the_metric(tmp_path):
    assert check(_artifact(tmp_path, "cosine", 0.99), _Doubling(factor=2.5)).passed


def test_broken_answers_are_named_without_metrics(tmp_path):
    verdict = check(_artifact(tmp_path), _Doubling(factor=0.0))
    assert not verdict.passed
    assert verdict.message == "output 'y' is the same for every input"


def test_answers_are_real_numbers_by_name_or_place():
    assert np.array_equal(answers(_Doubling(), SAMPLES)["y"], RIGHT["y"])
    assert np.array_equal(answers(_Doubling(), {"renamed": SAMPLES["x"]})["y"], RIGHT["y"])


def test_an_artifact_without_selfcheck(tmp_path):
    (tmp_path / "model.null").write_bytes(b"0")
    with pytest.raises(InputError, match="no self-check"):
        check(Artifact.open(tmp_path / "model.null"), _Doubling())


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (SAMPLES, {"y": RIGHT["y"][:2]}, "do not pair up"),
        ({"x": np.zeros((0, 1, 3), np.float32)}, {"y": np.zeros((0, 1, 3), np.float32)}, "do not pair up"),
        ({**SAMPLES, "more": SAMPLES["x"]}, RIGHT, "holds 2 inputs, the model takes 1"),
        (SAMPLES, {"y": np.zeros((4, 5), np.float32)}, r"'y' as \[5\], the model answers \[1, 3\]"),
        ({"x": SAMPLES["x"][..., :2]}, RIGHT, r"takes float32\[1, 3\]"),
    ],
)
def test_a_selfcheck_that_does_not_fit_is_refused(tmp_path, inputs, outputs, words):
    with pytest.raises(InputError, match=words):
        check(_artifact(tmp_path, inputs=inputs, outputs=outputs), _Doubling())


def test_an_unknown_metric_is_refused(tmp_path):
    with pytest.raises(InputError, match="no metric 'beauty'"):
        check(_artifact(tmp_path, "beauty"), _Doubling())


def test_an_output_that_nothing_is_stored_for():
    with pytest.raises(InputError, match="no values for 'z'"):
        judge(SelfCheck("max_abs", 1, "synthetic"), RIGHT, {"y": RIGHT["y"], "z": RIGHT["y"]})


def test_the_worst_output_decides():
    expected = {"a": RIGHT["y"], "b": RIGHT["y"]}
    verdict = judge(SelfCheck("max_abs", 0.1, "synthetic"), expected, {"a": RIGHT["y"], "b": RIGHT["y"] + 1})
    assert not verdict.passed
    assert verdict.metrics["max_abs"] == 1


def test_verify_opens_the_artifact_with_the_engine(tmp_path):
    samples = {"x": np.array([[1.0], [2.0]], np.float32)}
    artifact = _artifact(tmp_path, inputs=samples, outputs={"x": samples["x"]})
    verdict = verify(artifact, tensor_engine("null"), RunOptions())
    assert verdict["passed"]
    assert set(verdict) == {"passed", "metrics", "message"}
