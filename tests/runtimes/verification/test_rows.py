"""Outputs whose number of rows depends on the input: matched as sets; missing and wrong rows are found."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from runtimes.verification.rows import count_matching, judge_rows, pad, padded_axis, row_check

RNG = np.random.default_rng(0)
COUNTS = (6, 9, 4, 8, 7)
BOXES = [(RNG.uniform(0, 640, (count, 4))).astype(np.float32) for count in COUNTS]
SCORES = [RNG.uniform(0, 1, count).astype(np.float32) for count in COUNTS]
PRECISIONS = ["fp32", "fp16", "int8"]


def failures(precision, change_boxes=lambda rows: rows, change_scores=lambda rows: rows):
    expected = {"boxes": pad(BOXES, 0), "scores": pad(SCORES, 0)}
    given = {
        "boxes": pad([change_boxes(rows) for rows in BOXES], 0),
        "scores": pad([change_scores(rows) for rows in SCORES], 0),
    }
    checks = [row_check(name, 0, values, exact=False) for name, values in expected.items()]
    (report,) = judge_rows(precision, checks, expected, given).values()
    return report.failures


@pytest.mark.parametrize("precision", PRECISIONS)
def test_equal_rows_pass_in_any_order(precision):
    assert failures(precision) == ()
    assert failures(precision, lambda rows: rows[::-1], lambda rows: rows[::-1]) == ()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_dropped_row_fails(precision):
    assert failures(precision, lambda rows: rows[:-1], lambda rows: rows[:-1])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_row_too_many_fails(precision):
    def doubled(rows):
        return np.concatenate([rows, rows[:1]])

    assert failures(precision, doubled, doubled)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_one_wrong_row_of_one_sample_fails(precision):
    def spoiled(rows):
        return rows + (320 * (np.arange(len(rows)) == 2)[:, np.newaxis] if len(rows) == COUNTS[0] else 0)

    (line,) = failures(precision, spoiled)
    assert "1 of the source's rows are missing or wrong" in line


def test_rows_of_another_kind_fail_in_int8():
    assert failures("int8", lambda rows: rows[:, ::-1])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_outputs_that_belong_together_are_matched_together(precision):
    assert failures(precision, change_scores=lambda rows: rows[::-1])
    assert failures(precision, change_scores=lambda rows: rows[:-1]) == (
        "outputs of one row each differ in their number of rows",
    )


def test_a_row_at_a_threshold_may_fall_on_either_side_in_int8():
    def change(rows):
        if len(rows) == COUNTS[0]:
            return rows[:-1]
        return np.concatenate([rows, rows[:1] + 9]) if len(rows) == COUNTS[1] else rows

    assert failures("int8", change, change) == ()
    assert failures("fp32", change, change)


@pytest.mark.parametrize(("share", "passes"), [(0.1, True), (3.0, False)])
@pytest.mark.parametrize(("precision", "off"), [("fp32", 1 / 2048), ("fp16", 1 / 128), ("int8", 1 / 16)])
def test_values_may_be_off_by_a_share_of_their_column(precision, off, share, passes):
    assert (failures(precision, change_scores=lambda rows: rows + share * off) == ()) == passes


def test_values_that_are_not_numbers_fail():
    assert failures("int8", lambda rows: np.where(rows == rows[0], np.nan, rows))


def test_indices_must_be_equal():
    places = [np.argwhere(RNG.uniform(size=(5, 5)) > 0.5).astype(np.float32) for _ in range(5)]
    expected = {"y": pad(places, 0)}
    check = row_check("y", 0, expected["y"], exact=True)
    given = {"y": pad([rows + (rows == rows.max()) for rows in places], 0)}
    (report,) = judge_rows("int8", [check], expected, given).values()
    assert report.failures
    (report,) = judge_rows("fp32", [check], expected, expected).values()
    assert not report.failures


def test_rows_along_the_last_axis():
    places = [np.stack(np.nonzero(RNG.uniform(size=(5, 5)) > 0.5)).astype(np.float32) for _ in range(5)]
    values = pad(places, 1)
    assert padded_axis(values, (2, "n")) == 1
    check = row_check("y", 1, values, exact=True)
    (report,) = judge_rows("fp32", [check], {"y": values}, {"y": values[:, :, ::-1]}).values()
    assert not report.failures
    (report,) = judge_rows("fp32", [check], {"y": values}, {"y": values[:, ::-1]}).values()
    assert report.failures


def test_samples_without_any_row():
    values = pad([np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)], 0)
    check = row_check("y", 0, values, exact=False)
    (report,) = judge_rows("fp32", [check], {"y": values}, {"y": values}).values()
    assert (report.share, report.failures) == (1.0, ())
    (report,) = judge_rows("fp32", [check], {"y": values}, {"y": values[:, :0]}).values()
    assert report.failures


def test_only_whole_rows_count_as_padding():
    some = np.array([[[1.0, np.nan], [2.0, 3.0]], [[1.0, 2.0], [3.0, 4.0]]])
    assert padded_axis(some, ("n", "m")) is None
    assert padded_axis(np.full((2, 3, 4), np.nan), ("n", "m")) is None


def test_a_sample_without_rows_is_padded_along_the_free_axis():
    values = pad([np.zeros((4, 0), np.float32), np.ones((4, 1), np.float32)], 1)
    assert padded_axis(values, (4, "k")) == 1
    assert padded_axis(values, (4, 1)) is None


def test_as_many_rows_are_matched_as_can_be():
    expected, given = np.array([[0.0], [1.0], [2.0]]), np.array([[1.9], [0.9], [2.8]])
    assert count_matching(expected, given, np.array([0.95])) == 3
    assert count_matching(expected, given, np.array([0.85])) == 2


def test_matching_against_every_assignment():
    for seed in range(30):
        generator = np.random.default_rng(seed)
        expected, given = generator.integers(0, 9, (5, 1)) * 1.0, generator.integers(0, 9, (5, 1)) * 1.0
        best = max(
            sum(abs(expected[i, 0] - given[j, 0]) <= 1 for i, j in enumerate(order)) for order in permutations(range(5))
        )
        assert count_matching(expected, given, np.array([1.0])) == best
