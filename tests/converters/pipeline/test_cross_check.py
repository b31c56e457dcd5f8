"""A result that is right on this machine's engine and wrong on its device's own engine fails."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from converters.base import CrossCheckResult
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from converters.pipeline.verification import combine_verdicts, verify
from runtimes.errors import ProofError

TRUTH = {"scores": np.random.default_rng(0).dirichlet(np.ones(5), 20).astype(np.float32)}


def _testimony(answers, name="other"):
    return CrossCheckResult(engine="the old engine", answers={name: answers}, notes=("it was asked",))


def test_both_engines_have_to_be_right():
    here = verify("fp16", TRUTH, TRUTH)
    assert combine_verdicts(here, _testimony(TRUTH["scores"]), "fp16", TRUTH).passed
    worse = combine_verdicts(here, _testimony(TRUTH["scores"] + 0.01), "fp16", TRUTH)
    assert worse.passed
    assert worse.metrics["max_abs"] == pytest.approx(0.01, rel=1e-3)
    wrong = combine_verdicts(here, _testimony(np.roll(TRUTH["scores"], 1, axis=1)), "fp16", TRUTH)
    assert not wrong.passed
    assert wrong.message.startswith("on the old engine, output 'scores' is too far")


def test_a_wrong_answer_here_stays_wrong():
    here = verify("fp16", TRUTH, {"scores": np.roll(TRUTH["scores"], 1, axis=1)})
    verdict = combine_verdicts(here, _testimony(TRUTH["scores"]), "fp16", TRUTH)
    assert not verdict.passed
    assert "old engine" not in verdict.message


@pytest.fixture
def request_for(classifier, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    return ConvertRequest(
        source=classifier,
        steps=("onnx_to_onnx",),
        format="onnx",
        options=ConvertOptions(),
        out=out,
        scratch=tmp_path / "scratch",
    )


def _with_witness(step, monkeypatch, asked):
    plain = step.convert
    monkeypatch.setattr(step, "convert", lambda *given: replace(plain(*given), cross_check=asked))


def test_the_pipeline_asks_the_witness_with_what_it_fed(step, request_for, monkeypatch):
    asked = []

    def old_engine(feeds, outputs):
        import onnxruntime

        asked.append((sorted(feeds), outputs))
        session = onnxruntime.InferenceSession(request_for.out / "copied.onnx", providers=["CPUExecutionProvider"])
        rows = [session.run(outputs, {"image": sample})[0] for sample in feeds["image"]]
        return _testimony(np.stack(rows))

    _with_witness(step, monkeypatch, old_engine)
    answer = convert(request_for, lambda _progress: None)
    assert asked == [(["image"], ["scores"])]
    assert answer.notes[-1] == "it was asked"
    manifest = json.loads((request_for.out / "manifest.json").read_text())
    assert manifest["proof"]["witness"] == "the old engine"


def test_a_witness_against_it_fails_the_conversion(step, request_for, monkeypatch):
    _with_witness(step, monkeypatch, lambda feeds, _: _testimony(np.full((len(feeds["image"]), 1, 5), 0.2, np.float32)))
    with pytest.raises(ProofError, match="on the old engine, "):
        convert(request_for, lambda _progress: None)
