"""Parts of an output: a constant, too coarse or garbled part fails; a weak one is only named."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.artifact.self_check import OutputCheck, Part
from runtimes.verification.slices import complete_check, judge_slices, limits_of, observed_step

INT8 = limits_of("int8")
RANDOM = np.random.default_rng(8)
NOISE = RANDOM.standard_normal((16, 1, 7, 8, 8))
BOXES = 320 + 100 * NOISE[:, :, :4]
SCORES = 1 / (1 + np.exp(-3 * NOISE[:, :, 4:]))
DETECTOR = np.concatenate([BOXES, SCORES], axis=2)
FEATURES = np.maximum(RANDOM.standard_normal((16, 1, 64)) * np.geomspace(0.02, 3, 64), 0)


def rounded(values, step):
    return np.round(values / step) * step


def inside(truth, given, *parts, precision="int8", scale=0.0):
    shape = truth.shape[1:]
    check = OutputCheck("out", "values", parts or (Part(0, 0, shape[0] if shape else 1, 0.0),))
    return judge_slices(complete_check(check, truth, given, scale), truth, given, limits_of(precision))


def places(report):
    return {(one.axis, one.first, one.last) for one in report.failed}


TRACED = (Part(1, 0, 4, 0.0), Part(1, 4, 7, 1.0, True))


@pytest.mark.parametrize("parts", [TRACED, ()])
@pytest.mark.parametrize("step", [640 / 255, 8.0])
def test_scores_beside_boxes_in_pixels_are_lost(parts, step):
    report = inside(DETECTOR, rounded(DETECTOR, step), *parts)
    assert places(report) == {(1, 4, 6)}
    assert report.worst.where == "output 'out', channels 4..6"


def test_scores_in_the_last_axis_are_lost_too():
    turned, given = (np.moveaxis(values, 2, -1) for values in (DETECTOR, rounded(DETECTOR, 2.5)))
    assert places(inside(turned, given)) == {(3, 4, 6)}


def test_scores_kept_in_float_beside_rounded_boxes_pass():
    given = np.concatenate([rounded(BOXES, 2.5), rounded(SCORES, 1 / 256)], axis=2)
    report = inside(DETECTOR, given, *TRACED)
    assert report.failed == ()
    assert report.checked > 7


def test_a_step_that_just_holds_the_range_passes_and_a_coarser_one_fails():
    scores = (Part(1, 0, 3, 1.0, True),)
    assert not inside(SCORES, rounded(SCORES, 1 / 32), *scores).failed
    assert inside(SCORES, rounded(SCORES, 1 / 31), *scores).failed


def test_a_step_from_the_file_counts_where_too_few_values_show_it():
    assert observed_step(np.zeros((4, 1, 3))) == 0
    few = SCORES[:2, :, :1, :1, :1]
    assert not inside(few, few, Part(1, 0, 1, 1.0, True)).failed
    assert inside(few, few, Part(1, 0, 1, 1.0, True), scale=2.5).failed


def test_steps_that_the_source_has_too_lose_nothing():
    labels = RANDOM.integers(0, 21, (8, 1, 16, 16)).astype(np.float32)
    assert observed_step(labels) == 1
    assert not inside(labels, labels).failed


def test_values_off_any_grid_have_no_step():
    assert observed_step(SCORES) == 0
    levels = np.repeat(1 / (1 + np.exp(-np.arange(-4, 5))), 100)
    assert observed_step(levels) == 0  # a sigmoid behind rounded values
    assert observed_step(rounded(SCORES, 1 / 256)) == pytest.approx(1 / 256)


@pytest.mark.parametrize("precision", ["int8", "w8", "fp16", "fp32"])
def test_a_dead_channel_is_found_in_every_precision(precision):
    given = SCORES.copy()
    given[:, :, 1] = 0.5
    report = inside(SCORES, given, precision=precision)
    assert places(report) == {(1, 1, 1)}
    assert "constant in the result" in report.describe()[0]


def test_a_dead_column_of_a_classifier_is_found():
    shares = np.full((16, 1, 1001), 1e-4)
    shares[np.arange(16), 0, np.arange(16) * 60] = 0.9
    given = rounded(shares, 1 / 256)
    assert not inside(shares, given, Part(0, 0, 1, 1.0, True)).failed
    given[:, :, 120] = 0
    report = inside(shares, given, Part(0, 0, 1, 1.0, True))
    assert report.describe()[0].startswith("output 'out', column 120: constant in the result")


def test_columns_that_move_by_less_than_two_steps_are_named_and_pass():
    shares = np.full((16, 1, 1001), 1e-4)
    shares[:, 0, :180] = RANDOM.uniform(0, 0.5, (16, 180))
    shares[:, 0, 180:] *= RANDOM.uniform(0, 15, (16, 821))
    report = inside(shares, rounded(shares, 1 / 256), Part(0, 0, 1, 1.0, True))
    assert not report.failed
    (line,) = report.faint
    assert "821 of 1,001 columns" in line


def test_one_weak_value_that_noise_holds_back_is_no_defect_but_several_are():
    scores = np.zeros((16, 1, 40))
    scores[:, 0, :30] = RANDOM.uniform(0, 1, (16, 30))
    scores[3, 0, 35] = 0.02
    given = rounded(scores, 1 / 256)
    given[3, 0, 35] = 0
    assert not inside(scores, given, Part(0, 0, 1, 1.0, True)).failed
    scores[:, 0, 35] = RANDOM.uniform(0, 0.02, 16)
    assert places(inside(scores, given, Part(0, 0, 1, 1.0, True))) == {(1, 35, 35)}


def test_channels_that_were_swapped_are_found_though_the_whole_is_near():
    many = RANDOM.standard_normal((16, 1, 64, 4, 4))
    given = many + 0.05 * RANDOM.standard_normal(many.shape)
    assert not inside(many, given).failed
    given[:, :, [5, 6]] = given[:, :, [6, 5]]
    assert places(inside(many, given)) == {(1, 5, 6)}


def test_weak_channels_of_one_feature_map_pass():
    step = FEATURES.max() / 255
    noise = 0.3 * step * RANDOM.standard_normal(FEATURES.shape)
    report = inside(FEATURES, rounded(np.maximum(FEATURES + noise, 0), step))
    assert not report.failed, report.describe()


def test_a_large_error_in_one_picture_of_a_column_is_no_defect():
    shares = np.zeros((20, 1, 100))
    shares[np.arange(20), 0, np.arange(20) * 5] = 0.45
    given = shares.copy()
    given[4, 0, 20] += 0.12
    assert not inside(shares, given, Part(0, 0, 1, 1.0, True)).failed


@pytest.mark.parametrize(("precision", "noise", "passes"), [("fp32", 1e-5, True), ("fp32", 0.05, False),
    ("fp16", 0.01, True), ("fp16", 0.5, False), ("int8", 0.2, True), ("int8", 1.0, False)])  # fmt: skip
def test_noise_is_allowed_by_precision(precision, noise, passes):
    weak = np.concatenate([BOXES, NOISE[:, :, 4:]], axis=2)
    given = weak.copy()
    given[:, :, 4:] += noise * RANDOM.standard_normal(NOISE[:, :, 4:].shape)
    report = inside(weak, given, Part(1, 0, 4, 0.0), Part(1, 4, 7, 0.0), precision=precision)
    assert bool(report.failed) is not passes


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 4), (1, 1, 5), (1, 3, 4)])
def test_any_rank_and_a_single_sample(shape):
    truth = RANDOM.standard_normal(shape)
    assert not inside(truth, truth).failed
    if truth[0].size > 1:
        report = inside(truth, np.zeros(shape))
        assert report.failed


def test_large_outputs_are_looked_at_in_part():
    truth = np.broadcast_to(RANDOM.standard_normal((40, 1, 1, 1, 1)), (40, 1, 3, 500, 500)) * np.ones((3, 1, 1))
    given = truth.astype(np.float32).copy()
    given[:, :, 2] = 0
    assert places(inside(truth, given)) == {(1, 2, 2)}


def test_what_is_found_is_json():
    report = inside(DETECTOR, rounded(DETECTOR, 2.5), *TRACED)
    found = report.worst.as_dict()
    assert (found["output"], found["axis"], found["first"], found["last"]) == ("out", 1, 4, 6)
    assert found["where"] == "output 'out', channels 4..6"
