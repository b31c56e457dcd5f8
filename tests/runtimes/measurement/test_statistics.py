import math

import numpy as np
import pytest

from runtimes.measurement import statistics


def binomial_tail(trials, probability, most):
    """P(Binomial(trials, probability) <= most), summed from the definition."""
    return sum(
        math.factorial(trials)
        / (math.factorial(k) * math.factorial(trials - k))
        * probability**k
        * (1 - probability) ** (trials - k)
        for k in range(most + 1)
    )


def test_median_of_odd_and_even_counts():
    assert statistics.median([3.0, 1.0, 2.0]) == 2.0
    assert statistics.median([4.0, 1.0, 2.0, 3.0]) == 2.5


@pytest.mark.parametrize(("share", "runs"), [(0.90, 64), (0.95, 130), (0.97, 219), (0.99, 662)])
def test_fewest_runs_are_those_of_mlperf(share, runs):
    assert statistics.fewest_runs(share) == runs
    assert binomial_tail(runs, 1 - share, 1) <= 0.01 < binomial_tail(runs - 1, 1 - share, 1)


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1024, 0.90, 80), (1024, 0.99, 3), (250, 0.90, 14), (250, 0.95, 4), (250, 0.97, 1), (250, 0.99, -1), (0, 0.9, -1)],
)
def test_discards_are_those_of_mlperf(count, share, expected):
    assert statistics.discards(count, share) == expected


def test_percentile_is_the_nearest_rank():
    values = list(range(200, 0, -1))
    assert statistics.percentile(values, 0.90) == 180.0
    assert statistics.percentile(values, 0.95) == 190.0


@pytest.mark.parametrize(("share", "runs"), [(0.90, 64), (0.95, 130), (0.99, 662)])
def test_percentile_is_refused_where_the_runs_cannot_support_it(share, runs):
    assert statistics.percentile([1.0] * (runs - 1), share) is None
    assert statistics.percentile([1.0] * runs, share) == 1.0


def test_median_interval_needs_six_samples():
    assert statistics.median_interval([1.0] * 5) is None
    assert statistics.median_interval([5.0, 1.0, 2.0, 4.0, 3.0, 6.0]) == statistics.Interval(1.0, 3.5, 6.0)


@pytest.mark.parametrize("count", [6, 9, 25, 100])
def test_median_interval_has_its_confidence_and_no_rank_to_spare(count):
    interval = statistics.median_interval(list(range(count)))
    rank = int(interval.low)
    assert interval.high == count - 1 - rank
    assert 2 * binomial_tail(count, 0.5, rank) <= 0.05 < 2 * binomial_tail(count, 0.5, rank + 1)


def test_median_interval_holds_the_median_as_often_as_it_says():
    generator = np.random.default_rng(7)
    draws = generator.lognormal(size=(2000, 40))
    intervals = [statistics.median_interval(row) for row in draws]
    share = np.mean([interval.low <= 1.0 <= interval.high for interval in intervals])
    assert 0.94 <= share <= 0.99


def test_interval_within_and_overlaps():
    interval = statistics.Interval(0.99, 1.0, 1.01)
    assert interval.within(0.0101)
    assert not interval.within(0.005)
    assert interval.overlaps(1.01, 2.0)
    assert not interval.overlaps(1.02, 2.0)


def test_spread_is_the_interquartile_range_over_the_median():
    assert statistics.spread([8.0, 9.0, 10.0, 11.0, 12.0]) == pytest.approx(0.2)
    assert statistics.spread([8.0, 9.0, 10.0, 11.0, 1e9]) == pytest.approx(0.2)
    assert statistics.spread([0.0, 0.0]) == 0.0


def test_paired_ratio_cancels_what_slows_both_halves():
    drift = np.linspace(1.0, 3.0, 12)
    interval = statistics.paired_ratio(1.01 * drift, drift)
    assert interval.value == pytest.approx(1.01)
    assert interval.high - interval.low < 1e-9
    assert statistics.paired_ratio([1.0] * 5, [1.0] * 5) is None


def test_ratio_of_medians_bounds_the_ratio():
    generator = np.random.default_rng(3)
    slow, quick = generator.normal(2.0, 0.1, 200), generator.normal(1.0, 0.05, 300)
    interval = statistics.ratio_of_medians(slow, quick)
    assert interval.low < 2.0 < interval.high
    assert interval.low > 1.9
    assert interval.high < 2.1
    assert statistics.ratio_of_medians([1.0] * 6, [1.0] * 100) is None
