"""A good conversion passes and a wrong one fails, for every precision."""

from __future__ import annotations

import numpy as np
import pytest

from converters.calibration.dataset import Calibration
from converters.pipeline.verification import (
    LIMITS,
    Samples,
    find_ties,
    loosen,
    selfcheck_count,
    selfcheck_rows,
    selfcheck_rule,
    source_answers,
    verify,
)
from runtimes.artifact import TensorSpec
from runtimes.artifact.self_check import OutputCheck
from runtimes.errors import ProofError
from runtimes.session import CheckedSession
from runtimes.verification.metrics import compare

GENERATOR = np.random.default_rng(3)
START = GENERATOR.bit_generator.state
LOGITS = 4 * GENERATOR.standard_normal((20, 1, 50))


@pytest.fixture(autouse=True)
def same_numbers_in_any_order():
    GENERATOR.bit_generator.state = START


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


TRUTH = {"p": softmax(LOGITS)}


def noisy(strength: float):
    """The answers of a network whose logits carry noise: 1e-6 another engine, 0.002 fp16, 0.15 int8."""
    return {"p": softmax(LOGITS + strength * np.random.default_rng(4).standard_normal(LOGITS.shape))}


@pytest.mark.parametrize(("precision", "strength"), [("fp32", 1e-6), ("fp16", 0.002), ("w8", 0.05), ("int8", 0.15)])
def test_a_good_conversion_passes(precision, strength):
    proof = verify(precision, TRUTH, noisy(strength))
    assert proof.passed, proof.message


@pytest.mark.parametrize(("precision", "strength"), [("fp32", 0.002), ("fp16", 0.6), ("w8", 1.5), ("int8", 1.5)])
def test_a_conversion_that_is_a_class_worse_fails(precision, strength):
    proof = verify(precision, TRUTH, noisy(strength))
    assert not proof.passed
    assert "output 'p' is too far from the source's: " in proof.message


@pytest.mark.parametrize("precision", ["fp32", "fp16", "w8", "int8"])
@pytest.mark.parametrize(
    "wrong",
    [
        lambda p: p[:, :, ::-1],  # classes in the wrong order
        lambda p: np.roll(p, 1, axis=-1),  # off by the background class
        lambda p: np.roll(p, 1, axis=0),  # the answer to another input
        lambda p: p * 0.2,  # a wrong output scale
        lambda p: np.full_like(p, 1 / 50),
        lambda p: np.where(p > 0.5, np.nan, p),
        lambda p: np.repeat(p[:1], len(p), axis=0),
    ],
)
def test_wrong_answers_fail_in_every_precision(precision, wrong):
    assert not verify(precision, TRUTH, {"p": wrong(TRUTH["p"]).astype(np.float32)}).passed


def test_a_source_that_hardly_changes_does_not_excuse_one_that_does_not():
    flat = {"p": softmax(1e-4 * LOGITS)}
    mean = np.broadcast_to(flat["p"].mean(axis=0), flat["p"].shape) + 1e-7 * np.arange(20)[:, None, None]
    assert np.abs(flat["p"] - mean).max() < LIMITS["fp32"]["max_abs"]
    proof = verify("fp32", flat, {"p": mean.astype(np.float32)})
    assert not proof.passed
    assert "snr_db" in proof.message


def test_few_samples_do_not_decide_by_top1():
    few = {"p": TRUTH["p"][:4]}
    assert "top1_agreement" not in verify("int8", few, few).limits
    assert "top1_agreement" in verify("int8", TRUTH, TRUTH).limits


def test_an_output_that_is_no_classifier_has_no_top1_limit():
    boxes = {"boxes": LOGITS.astype(np.float32)}
    assert set(verify("int8", boxes, boxes).limits) == {"snr_db", "cosine"}


def test_absolute_limits_grow_with_large_outputs():
    large = {"x": (1000 * LOGITS).astype(np.float32)}
    assert verify("fp32", large, {"x": large["x"] + 0.1}).passed
    assert not verify("fp32", large, {"x": large["x"] + 10}).passed


def test_the_worst_output_decides():
    truth = {"a": TRUTH["p"], "b": TRUTH["p"]}
    proof = verify("int8", truth, {"a": TRUTH["p"], "b": noisy(1.5)["p"]})
    assert not proof.passed
    assert "output 'b'" in proof.message
    assert "output 'a'" not in proof.message


@pytest.mark.parametrize(("precision", "remedy"), [("int8", "calibrate with more"), ("fp16", "--precision fp32")])
def test_the_error_says_what_to_try_and_where_the_result_is(precision, remedy):
    error = verify(precision, TRUTH, noisy(1.5)).error(precision, "out.failed")
    assert error.exit_code == 6
    assert remedy in error.hint
    assert "out.failed" in error.hint
    assert "\n" not in error.message + error.hint


def test_a_selfcheck_stores_samples_that_are_answered_the_same():
    given = noisy(0.05)["p"]
    given[7] = given[7, :, ::-1]
    rows = selfcheck_rows(TRUTH, {"p": given})
    assert len(rows) == 4
    assert 7 not in rows


@pytest.mark.parametrize(("precision", "metric"), [("fp32", "max_abs"), ("fp16", "max_abs"), ("int8", "snr_db")])
def test_a_device_decides_by_the_first_limit(precision, metric):
    rule = selfcheck_rule(precision, TRUTH, "pictures")
    assert (rule.metric, rule.inputs) == (metric, "pictures")
    assert rule.tolerance == verify(precision, TRUTH, TRUTH).limits[metric]


class _Source(CheckedSession):
    def __init__(self, answer):
        super().__init__([TensorSpec("x", "float32", (1, 2))], [TensorSpec("y", "float32", (1, 2))])
        self._answer = answer

    def _run(self, feeds):
        return {"y": self._answer(feeds["x"]).astype(np.float32)}


SAMPLES = Samples(Calibration({"x": np.random.default_rng(0).random((4, 1, 2)).astype(np.float32)}), "arrays")
MADE_UP = Samples(SAMPLES.inputs, "synthetic")


def test_the_sources_answers():
    answers = source_answers(_Source(lambda x: 2 * x), SAMPLES)
    assert np.allclose(answers["y"], 2 * SAMPLES.inputs.samples["x"])


def test_a_source_that_ignores_its_input_proves_nothing():
    with pytest.raises(ProofError, match="nothing can be proven"):
        source_answers(_Source(lambda x: 0 * x + 1), SAMPLES)


def test_a_source_that_is_broken_itself():
    with pytest.raises(ProofError, match="not finite for the given inputs"):
        source_answers(_Source(lambda x: x * np.nan), SAMPLES)


NOT_FINITE = np.array([[1.0, -np.inf, np.nan], [2.0, -np.inf, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("change", "passes"),
    [
        (lambda values: values, True),
        (lambda values: np.where(np.isnan(values), 0, values), False),
        (lambda values: np.where(np.isinf(values), 0, values), False),
        (lambda values: np.where(np.isinf(values), np.inf, values), False),
        (lambda values: np.where(values == 2, np.nan, values), False),
    ],
)
def test_what_is_not_finite_in_the_source_is_the_same_in_the_result(change, passes):
    answers = source_answers(_Source(lambda x: np.array([[1, -np.inf]]) * x), SAMPLES)
    assert np.isinf(answers["y"]).any()
    proof = verify("fp32", {"y": NOT_FINITE}, {"y": change(NOT_FINITE).astype(np.float32)})
    assert proof.passed is passes


def test_an_output_without_elements_is_compared_by_its_shape():
    empty = np.zeros((4, 0, 3), np.float32)
    assert verify("fp32", {"y": empty}, {"y": empty}).passed
    assert not verify("fp32", {"y": empty}, {"y": np.zeros((4, 3, 0), np.float32)}).passed


def test_a_refusal_that_rests_on_made_up_inputs_says_so_and_how_to_give_real_ones():
    with pytest.raises(ProofError, match="not finite for synthetic inputs") as refusal:
        source_answers(_Source(lambda x: x * np.nan), MADE_UP)
    assert "synthetic: pass real ones with --calibration" in refusal.value.hint
    wrong = verify("fp32", TRUTH, {name: -values for name, values in TRUTH.items()})
    assert "the inputs are synthetic" in wrong.error("fp32", "out", are_made_up=True).hint
    assert "synthetic" not in wrong.error("fp32", "out").hint


def test_best_answers_that_tie_are_reported_for_a_classifier_whose_source_has_one():
    source = np.array([[0.5, 0.498, 0.002], [0.3, 0.6, 0.1], [0.2, 0.2, 0.6]])
    eight_bits = np.round(source * 256) / 256
    assert find_ties({"y": source}, {"y": eight_bits}) == ()  # one of three is few, and none ties that the source parts
    coarse = np.array([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    (line,) = find_ties({"y": source}, {"y": coarse})
    assert "'y' has a tie for the best answer in 67%" in line
    assert find_ties({"y": source * 3}, {"y": coarse}) == ()  # a feature map may have equal maxima
    assert find_ties({"y": coarse}, {"y": coarse}) == ()


def test_a_selfcheck_that_visitors_load_keeps_to_its_limit():
    feeds = {"x": np.zeros((8, 224, 224, 3), np.float32)}
    assert [selfcheck_count(feeds, limit) for limit in (None, 10_000_000, 1_500_000, 1)] == [4, 4, 2, 2]
    assert len(selfcheck_rows(TRUTH, noisy(0.05), count=2)) == 2


def test_a_quantized_source_is_not_told_to_use_another_precision():
    wrong = verify("int8", TRUTH, noisy(1.5))
    assert "fp16" in wrong.error("int8", "out").hint
    hint = wrong.error("int8", "out", own_scales=True).hint
    assert "start from the float model" in hint
    assert "fp16" not in hint


def test_a_self_check_is_loosened_to_twice_the_difference():
    given = noisy(1.5)
    rows = np.arange(3)
    rule = selfcheck_rule("int8", TRUTH, "arrays", [OutputCheck("p", "values")])
    found = compare(TRUTH["p"][rows], given["p"][rows])["snr_db"]
    assert loosen(rule, TRUTH, given, rows).tolerance == pytest.approx(found - 3, abs=0.01)
    assert loosen(rule, TRUTH, noisy(0), rows).tolerance == rule.tolerance
