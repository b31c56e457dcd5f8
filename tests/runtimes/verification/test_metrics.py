"""The metrics between a source's answers and an artifact's."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.errors import InputError
from runtimes.verification.metrics import IDENTICAL_DB, compare, is_constant, meets, probe, sums_to_one

ANSWERS = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], np.float32)


def test_identical_answers():
    assert compare(ANSWERS, ANSWERS) == {
        "max_abs": 0.0,
        "snr_db": IDENTICAL_DB,
        "cosine": pytest.approx(1),
        "top1_agreement": 1.0,
    }


def test_values_worked_out_by_hand():
    source = np.array([[1.0, 0.0], [0.0, 1.0]])
    found = compare(source, np.array([[0.9, 0.1], [0.6, 0.4]]))
    assert found["max_abs"] == pytest.approx(0.6)
    # What changes from sample to sample: ±0.5 everywhere, power 0.25; the difference: 0.01, 0.01, 0.36, 0.36.
    assert found["snr_db"] == pytest.approx(10 * np.log10(0.25 / 0.185))
    assert found["cosine"] == pytest.approx((0.9 / np.hypot(0.9, 0.1) + 0.4 / np.hypot(0.6, 0.4)) / 2)
    assert found["top1_agreement"] == 0.5


def test_an_artifact_that_always_answers_the_mean_has_no_signal():
    source = 0.001 + 1e-5 * np.random.default_rng(0).standard_normal((8, 1000))
    mean = np.broadcast_to(source.mean(axis=0), source.shape)
    found = compare(source, mean)
    assert found["max_abs"] < 1e-4
    assert found["snr_db"] == pytest.approx(0, abs=0.01)


def test_one_sample_has_its_own_power_as_signal():
    assert compare(np.array([[3.0, 4.0]]), np.array([[3.0, 5.0]]))["snr_db"] == pytest.approx(10 * np.log10(25))


def test_a_source_without_change_leaves_no_signal():
    assert compare(np.ones((2, 3)), np.zeros((2, 3)))["snr_db"] == 0.0


@pytest.mark.parametrize(("row", "cosine"), [([0.0, 0.0], 1.0), ([1.0, 0.0], 0.0)])
def test_cosine_with_answers_of_zeros(row, cosine):
    assert compare(np.array([[0.0, 0.0]]), np.array([row]))["cosine"] == cosine


def test_an_answer_near_zero_decides_little_about_the_cosine():
    source = np.array([[2.0, 1.8], [-0.7, -0.8], [-0.03, 0.11]])
    noise = np.array([[0.05, -0.05], [0.05, 0.05], [-0.05, -0.05]])
    found = compare(source, source + noise)
    assert found["cosine"] > 0.98
    assert compare(source, source * [[1], [-1], [1]])["cosine"] < 0.5  # an answer that counts decides
    assert compare(source, np.where(source == -0.03, -9, source))["cosine"] < 0.5  # also where the source has nothing


def test_shapes_must_agree():
    with pytest.raises(InputError, match=r"\[3, 3\] and \[3, 2\]"):
        compare(ANSWERS, ANSWERS[:, :2])


@pytest.mark.parametrize(
    ("metric", "value", "limit", "good"),
    [
        ("max_abs", 1e-5, 1e-4, True),
        ("max_abs", 1e-3, 1e-4, False),
        ("snr_db", 30.0, 12.0, True),
        ("snr_db", 11.9, 12.0, False),
        ("cosine", 0.95, 0.95, True),
        ("top1_agreement", 0.5, 0.8, False),
    ],
)
def test_which_way_is_better(metric, value, limit, good):
    assert meets(metric, value, limit) is good


def test_unknown_metric():
    with pytest.raises(InputError) as caught:
        meets("psnr", 1, 1)
    assert "snr_db" in caught.value.hint


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (np.where(ANSWERS == 0.4, np.nan, ANSWERS), "not finite"),
        (np.where(ANSWERS == 0.4, np.inf, ANSWERS), "not finite"),
        (np.tile(np.array([0.2, 0.3, 0.5]), (3, 1)), "same for every input"),
        (np.minimum(ANSWERS * 4, 1), "clipped"),
        (ANSWERS * 3, "sums to one"),
    ],
)
def test_what_is_plainly_broken_is_reported(given, words):
    assert words in str(probe(ANSWERS, given))


@pytest.mark.parametrize(("lower", "words"), [(0.1794, None), (0.1400, "is clipped: the top value is tied in 100%")])
def test_values_that_eight_bits_cannot_tell_apart_are_not_clipped(lower, words):
    source = np.array([[0.1800, lower, 0.02], [0.02, 0.1806, lower]])
    given = np.array([[46, 46, 5], [5, 46, 46]]) / 256
    assert words is None or words in str(probe(source, given))
    assert words is not None or probe(source, given) is None


def test_what_the_source_does_too_is_not_broken():
    constant = np.ones((3, 2))
    assert probe(constant, constant) is None
    assert probe(ANSWERS * 3, ANSWERS * 2.9) is None
    assert probe(ANSWERS, ANSWERS + 0.01) is None


def test_constant_answers():
    assert is_constant(np.ones((2, 3)))
    assert is_constant(np.array([[1.0, 2.0], [1.0, 2.0 + 1e-7]]))
    assert not is_constant(ANSWERS)
    assert not is_constant(ANSWERS[:1])


def test_distributions():
    assert sums_to_one(ANSWERS)
    assert not sums_to_one(ANSWERS * 1.1)
    assert not sums_to_one(np.array([[1.5, -0.5]]))
    assert not sums_to_one(np.ones((4, 1)))


def test_values_that_a_mask_set_far_off_do_not_hide_what_is_clipped():
    expected = np.random.default_rng(0).normal(size=(40, 1000))
    expected[:, 0] = -1e4
    assert "clipped" in str(probe(expected, np.minimum(expected, np.percentile(expected, 98))))
