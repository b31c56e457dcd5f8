"""Integer and boolean outputs are compared as labels, all together and each label alone."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.verification.labels import judge_labels

RANDOM = np.random.default_rng(2)
MAP = RANDOM.choice(21, p=[0.7, *[0.015] * 20], size=(4, 1, 64, 64)).astype(np.float32)


def changed(share, label=None):
    """The map with `share` of all elements, or of those of one label, changed to the next label."""
    places = np.flatnonzero(np.ones(MAP.size) if label is None else MAP.reshape(-1) == label)
    given = MAP.reshape(-1).copy()
    chosen = RANDOM.choice(places, round(share * len(places)), replace=False)
    given[chosen] = (given[chosen] + 1) % 21
    return given.reshape(MAP.shape)


@pytest.mark.parametrize(
    ("precision", "share", "passes"),
    [
        ("int8", 0.001, True), ("int8", 0.025, True), ("int8", 0.04, False), ("w8", 0.025, True),
        ("fp16", 0.0005, True), ("fp16", 0.005, False), ("fp32", 0.0, True), ("fp32", 0.002, False),
    ],
)  # fmt: skip
def test_the_share_over_all(precision, share, passes):
    report = judge_labels(precision, MAP, changed(share))
    assert report.share == pytest.approx(1 - share, abs=1e-4)
    assert (not report.failures) is passes


def test_a_label_that_is_lost_is_named_though_the_whole_is_near():
    report = judge_labels("int8", MAP, changed(0.9, label=20))
    assert report.share > 0.97
    (line,) = report.failures
    count = int((MAP == 20).sum())
    assert line.startswith("label 20: ")
    assert f"% of {count:,} elements kept, at least 80 %" in line
    assert report.worst[1] == pytest.approx(0.1, abs=0.01)
    assert report.as_dict()["worst_label"] == 20


def test_a_label_of_few_elements_decides_nothing():
    rare = np.zeros((1, 100, 100))
    rare[0, 0, :99] = 7
    given = np.zeros((1, 100, 100))
    assert not judge_labels("int8", rare, given).failures
    rare[0, 0, :100] = 7
    assert judge_labels("int8", rare, given).failures


def test_few_answers_are_held_as_a_top_1_is():
    answers = np.arange(20, dtype=float).reshape(20, 1)
    given = answers.copy()
    given[:3] += 1
    assert not judge_labels("int8", answers, given).failures
    given[:6] += 1
    assert judge_labels("int8", answers, given).failures
    assert judge_labels("fp32", answers, np.where(answers == 3, 4, answers)).failures


def test_truth_values_are_labels():
    truth = RANDOM.random((4, 1, 100)) > 0.5
    assert not judge_labels("fp32", truth, truth).failures
    assert judge_labels("int8", truth, ~truth).failures
