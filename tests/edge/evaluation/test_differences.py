"""Intervals of differences: how often they contain the truth, computed exactly or with seeded data."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest

from edge.evaluation.differences import (
    BETTER,
    NOT_SHOWN,
    TOO_FEW,
    WORSE,
    compare_records,
    difference_of_shares,
    jackknife,
)
from edge.tasks import Metrics, TaskView
from edge.tasks.classification import ClassificationView


@pytest.mark.parametrize(("lost", "gained"), [(0.02, 0.02), (0.1, 0.02), (0.3, 0.1), (0.0, 0.05)])
def test_an_interval_of_shares_contains_the_truth_as_often_as_it_says(lost, gained):
    count, covered = 30, 0.0
    for a, b in product(range(count + 1), repeat=2):
        if a + b > count:
            continue
        chance = comb(count, a) * comb(count - a, b) * lost**a * gained**b * (1 - lost - gained) ** (count - a - b)
        if chance > 1e-9:
            found = difference_of_shares(a, b, count)
            covered += chance * (found.low <= gained - lost <= found.high)
    assert 0.93 < covered <= 1


def test_equal_answers_leave_a_width_that_shrinks_with_the_number_of_inputs():
    few, many = difference_of_shares(0, 0, 30), difference_of_shares(0, 0, 3000)
    assert few.low == pytest.approx(-few.high)
    assert few.high == pytest.approx(1.959964**2 / (30 + 1.959964**2), rel=1e-6)
    assert 0 < many.high < few.high / 50


def test_losing_and_gaining_are_symmetric():
    one, other = difference_of_shares(9, 2, 50), difference_of_shares(2, 9, 50)
    assert (one.low, one.value, one.high) == pytest.approx((-other.high, -other.value, -other.low))


class MeanView(TaskView):
    """A metric without right and wrong: the mean of the records."""

    id = "mean"

    def describe(self, result):
        return ""

    def metrics(self, records):
        return Metrics(count=len(records), values={"mean": float(np.mean(records))} if records else {})


def test_the_jackknife_of_a_mean_contains_the_truth_as_often_as_it_says():
    draw, covered = np.random.default_rng(5), 0
    for _ in range(300):
        first, noise = draw.normal(0.5, 0.1, 100), draw.normal(0.02, 0.05, 100)
        found = jackknife(MeanView(), "mean", list(first[:, None]), list((first + noise)[:, None]))
        covered += found.low <= 0.02 <= found.high
    assert 0.9 < covered / 300 < 0.99


def records(right: int, count: int):
    return [np.array([[1.0, 1.0 if place < right else 0.0]]) for place in range(count)]


@pytest.mark.parametrize(
    ("first", "second", "verdict"), [(90, 60, WORSE), (60, 90, BETTER), (80, 79, NOT_SHOWN), (80, 80, NOT_SHOWN)]
)
def test_a_verdict_needs_more_than_chance(first, second, verdict):
    found = compare_records(ClassificationView(), "top1", records(first, 100), records(second, 100))
    assert (found.verdict, found.value) == (verdict, pytest.approx((second - first) / 100))


def test_few_inputs_give_no_interval_for_other_metrics():
    found = compare_records(MeanView(), "mean", [np.ones(1)] * 10, [np.zeros(1)] * 10)
    assert (found.verdict, found.interval, found.value) == (TOO_FEW, None, -1.0)
    assert compare_records(MeanView(), "other", [np.ones(1)] * 10, [np.zeros(1)] * 10) is None
