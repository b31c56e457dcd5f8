import itertools

import pytest

from runtimes.errors import UsageError
from runtimes.measurement import protocols


def silent(progress):
    assert progress["phase"]


class Clock:
    """Stands for `time`: each call to be timed moves it on by the next of `latencies`, in ms."""

    def __init__(self, latencies):
        self.now_ns, self.slept_s = 0, []
        self._latencies = itertools.chain(latencies)

    def perf_counter_ns(self):
        return self.now_ns

    def perf_counter(self):
        return self.now_ns / 1e9

    def sleep(self, seconds):
        self.slept_s.append(seconds)

    def call(self):
        self.now_ns += int(next(self._latencies) * 1e6)


@pytest.fixture
def clocked(monkeypatch):
    def use(latencies):
        clock = Clock(latencies)
        monkeypatch.setattr(protocols, "time", clock)
        return clock

    return use


def test_timed_loop_keeps_each_run_and_adds_up_to_the_wall_time(clocked):
    clock = clocked([5, 6, 7])
    assert protocols.timed_loop(clock.call, 3) == [5.0, 6.0, 7.0]


def test_published_is_one_warm_up_a_pause_and_one_loop(clocked):
    clock = clocked([90.0] + [8.0] * 250)
    started = []
    timings = protocols.Published().time(clock.call, silent, lambda _: started.append(clock.now_ns))
    assert timings.warmup_ms == [90.0]
    assert clock.slept_s == [1.0]
    assert timings.samples_ms == [8.0] * 250
    assert timings.total_s == pytest.approx(2.0)
    assert started == [90_000_000]


def test_steady_warms_up_until_a_ramp_has_ended(clocked):
    ramp = [40.0 * 0.97**i + 10.0 for i in range(120)]
    clock = clocked(ramp + [10.0] * 10_000)
    timings = protocols.Steady().time(clock.call, silent, lambda _: None)
    assert max(timings.samples_ms) < 1.1 * min(timings.samples_ms)
    assert timings.warmup_ms[0] == 50.0


def test_steady_gives_up_warming_up_after_a_third_of_its_time(clocked):
    clock = clocked(float(i) for i in range(1, 10_000))
    timings = protocols.Steady(max_s=3.0).time(clock.call, silent, lambda _: None)
    assert 1.0 <= sum(timings.warmup_ms) / 1e3 < 1.5


def test_steady_ends_once_the_median_is_known(clocked):
    clock = clocked(itertools.repeat(4.0))
    timings = protocols.Steady().time(clock.call, silent, lambda _: None)
    assert 250 <= len(timings.samples_ms) <= 400


def test_steady_makes_as_many_runs_as_p95_needs(clocked):
    clock = clocked(itertools.repeat(50.0))
    timings = protocols.Steady().time(clock.call, silent, lambda _: None)
    assert 130 <= len(timings.samples_ms) <= 200


def test_steady_ends_at_its_time_where_the_median_stays_unknown(clocked):
    clock = clocked(itertools.cycle([5.0, 50.0, 9.0, 30.0, 14.0, 20.0]))
    timings = protocols.Steady(max_s=5.0, within=0.0001).time(clock.call, silent, lambda _: None)
    assert 4.9 <= clock.perf_counter() <= 5.5
    assert timings.total_s == pytest.approx(sum(timings.samples_ms) / 1e3)


def test_steady_measures_a_model_slower_than_its_whole_time_once(clocked):
    clock = clocked(itertools.repeat(40_000.0))
    timings = protocols.Steady().time(clock.call, silent, lambda _: None)
    assert len(timings.samples_ms) == 1


def test_steady_bounds_the_number_of_runs(clocked):
    clock = clocked(itertools.repeat(0.001))
    timings = protocols.Steady(max_runs=1000).time(clock.call, silent, lambda _: None)
    assert len(timings.samples_ms) == 1000


def test_protocol_of_reads_back_what_as_dict_wrote():
    for protocol in (protocols.Published(runs=7), protocols.Steady(max_s=2.0)):
        assert protocols.protocol_from_dict(protocols.as_dict(protocol)) == protocol


def test_protocol_of_takes_steady_where_none_is_named():
    assert protocols.protocol_from_dict({}) == protocols.Steady()


@pytest.mark.parametrize(
    ("wanted", "part"),
    [
        ({"name": "quick"}, "no protocol 'quick'"),
        ({"name": "published", "max_s": 3}, "no 'max_s'"),
        ({"name": "published", "runs": 0}, "runs is 0"),
        ({"name": "steady", "max_s": 0}, "max_s is 0"),
    ],
)
def test_protocol_of_refuses_what_there_is_not(wanted, part):
    with pytest.raises(UsageError) as caught:
        protocols.protocol_from_dict(wanted)
    assert part in caught.value.message
    assert caught.value.hint
