"""What is computed from raw measurements: rows, findings, comparisons and reports."""

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from edge.benchmark import Measurement, Setup, compare, findings, read_rows, report, rows_of
from edge.benchmark.compare import list_unmatched
from runtimes.errors import InputError
from runtimes.measurement.statistics import median_interval

CALM = {
    "governor": None,
    "load_average": 0.1,
    "temperature_c": None,
    "temperature_sensor": None,
    "throttling": None,
    "mhz": 2600.0,
}


def signs(now=(), since_boot=(), events=None) -> dict:
    return {"source": "vcgencmd", "now": list(now), "since_boot": list(since_boot), "events": events}


def measurement(name="m", number=0, samples=(10.0, 10.1) * 70, **more) -> Measurement:
    values = {
        "status": "ok",
        "protocol": {"name": "steady", "within": 0.01},
        "artifact": "m.onnx",
        "runtime": "onnxruntime",
        "runtime_version": "1.20",
        "format": "onnx",
        "precision": "fp32",
        "threads": 1,
        "device": "cpu",
        "settings": {},
        "samples_ms": list(samples),
        "warmup_ms": [12.0],
        "total_s": sum(samples) / 1e3,
        "import_ms": 5.0,
        "load_ms": 20.0 + number,
        "first_ms": 12.0,
        "peak_rss_bytes": 50_000_000 + number,
        "energy_j": None,
        "energy_note": "no counters",
        "machine": {"cpu": "Test CPU", "logical_cores": 4, "os": "Test OS", "board": None},
        "conditions": {"before": dict(CALM), "after": dict(CALM)},
        "input": {"kind": "synthetic", "sha256": "0"},
        "output": {"name": "y", "kind": None},
        "top": [],
        "raw": None,
        **more,
    }
    return Measurement(setup=Setup(id=name, title=name.title(), artifact=Path("m.onnx")), round=number, values=values)


def with_conditions(when="after", **conditions) -> list:
    both = {"before": dict(CALM), "after": dict(CALM)}
    both[when].update(conditions)
    return rows_of([measurement(conditions=both)])


def doubts(rows) -> str:
    return "; ".join(f"{item.what} → {item.remedy}" for item in findings(rows))


def test_a_row_pools_the_rounds_and_keeps_each():
    row = rows_of([measurement(samples=[1.0] * 100), measurement(number=1, samples=[3.0] * 101)])[0]
    assert len(row.samples_ms) == 201
    assert row.median_ms == 3.0
    assert [part.median_ms for part in row.rounds] == [1.0, 3.0]
    assert row.load_ms == 20.5
    assert row.peak_rss_bytes == 50_000_001
    assert (row.low_ms, row.high_ms) == (1.0, 3.0)


def test_a_row_has_every_key_of_the_contract():
    keys = """setup runtime runtime_version threads precision status samples_ms median_ms mean_ms p90_ms p95_ms load_ms
    first_ms peak_rss_bytes top raw"""
    assert set(keys.split()) <= set(rows_of([measurement()])[0].to_json())


@pytest.mark.parametrize(("runs", "p90", "p95"), [(63, False, False), (64, True, False), (130, True, True)])
def test_percentiles_are_null_where_the_runs_do_not_support_them(runs, p90, p95):
    row = rows_of([measurement(samples=[5.0] * runs)])[0]
    assert (row.p90_ms is not None, row.p95_ms is not None) == (p90, p95)


def test_energy_is_reported_for_each_run():
    row = rows_of([measurement(samples=[1.0] * 10, energy_j=5.0)])[0]
    assert row.energy_per_run_j == 0.5
    assert rows_of([measurement()])[0].energy_per_run_j is None


def test_a_setup_that_failed_in_a_later_round_says_so_and_keeps_its_samples():
    failed = Measurement(
        setup=Setup(id="m", title="M", artifact=Path("m.onnx")),
        round=1,
        values={"status": "timeout", "message": "late", "hint": "wait"},
    )
    row = rows_of([measurement(), failed])[0]
    assert (row.status, row.message) == ("timeout", "late")
    assert len(row.samples_ms) == 140


def test_a_calm_measurement_leaves_no_doubt():
    assert findings(rows_of([measurement(), measurement(number=1)])) == []


@pytest.mark.parametrize(
    ("more", "what", "remedy"),
    [
        ({"samples": [8.0, 10.0, 12.0] * 50}, "is 40% of the median", "--rounds"),
        ({"first_ms": 50.0}, "first inference took 50 ms, 5.0 times the median", "start-up"),
        ({"samples": [10.0] * 90 + [500.0] * 10}, "slow runs raise the mean", "use the median"),
        ({"other_cores": 0.83}, "other processes kept 0.8 cores busy", "top"),
        ({"samples": [9.0, 11.0] * 10}, "known only to ±10.0%", "--seconds"),
    ],
)
def test_a_doubt_about_a_setup_names_its_remedy(more, what, remedy):
    found = doubts(rows_of([measurement(**more)]))
    assert what in found
    assert remedy in found


def test_rounds_that_differ_are_a_doubt():
    rows = rows_of([measurement(samples=[10.0] * 50), measurement(number=1, samples=[11.0] * 50)])
    assert "medians of the rounds differ by 10%" in doubts(rows)


@pytest.mark.parametrize(
    ("when", "conditions", "what", "remedy"),
    [
        ("after", {"governor": "ondemand"}, "governor is ondemand", "tee /sys/devices/system/cpu"),
        ("before", {"load_average": 3.0}, "other processes used the CPU: the load average is 3.0", "top"),
        ("after", {"temperature_c": 85.2}, "reached 85 °C", "fan"),
        ("after", {"power_mode": {"id": 1, "name": "5W"}}, "the power mode is 5W", "nvpmodel -m 0"),
        (
            "after",
            {"gpu_clock": {"now_mhz": 76.8, "min_mhz": 76.8, "max_mhz": 921.6, "fixed": False}},
            "the GPU's clock moves between 77 and 922 MHz",
            "jetson_clocks",
        ),
        ("after", {"throttling": signs(events=3)}, "throttled 3 times", "cool"),
        ("after", {"throttling": signs(now=("under-voltage",))}, "under-voltage", "power supply"),
    ],
)
def test_a_doubt_about_the_machine_names_its_remedy(when, conditions, what, remedy):
    found = findings(with_conditions(when, **conditions))
    assert [item.setup for item in found] == [None]
    assert what in found[0].what
    assert remedy in found[0].remedy


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [([], ["under-voltage", "throttled"], ["throttled, under-voltage"]), (["throttled"], ["throttled"], [])],
)
def test_throttling_that_was_over_before_the_loop_ended_is_reported(before, after, told):
    around = [{**CALM, "throttling": signs(since_boot=flags)} for flags in (before, after)]
    rows = rows_of([measurement(conditions=dict(zip(("before", "after"), around, strict=True)))])
    assert [item.what for item in findings(rows)] == [f"the board throttled: {flags}" for flags in told]


def test_a_good_governor_and_our_own_load_are_no_doubt():
    assert findings(with_conditions(governor="performance")) == []
    assert findings(with_conditions("before", load_average=1.3)) == []


def test_the_load_average_counts_only_where_the_cores_of_others_are_unknown():
    before = {"before": {**CALM, "load_average": 9.0}, "after": CALM}
    assert findings(rows_of([measurement(other_cores=0.0, conditions=before)])) == []


def test_more_threads_that_are_slower_are_a_doubt():
    one, four = measurement("one"), measurement("four", samples=[15.0] * 140, threads=4)
    found = findings(rows_of([one, four]))
    assert [(item.setup, item.what, item.remedy) for item in found] == [
        ("four", "4 threads are slower than 1", "--threads 1")
    ]


def test_unequal_threads_of_two_engines_are_a_doubt():
    unequal = [measurement("a"), measurement("b", runtime="openvino", threads=2), measurement("c", runtime="null")]
    (found,) = findings(rows_of([unequal[0], unequal[1]]))
    assert found.what == "the engines used unequal numbers of threads: onnxruntime 1; openvino 2"
    assert found.remedy == "choose one for all: --threads N"
    assert findings(rows_of([unequal[0], unequal[2]])) == []
    (unknown,) = findings(rows_of([unequal[0], measurement("d", runtime="litert", threads=None)]))
    assert "litert its own choice" in unknown.what


def test_full_power_and_a_fixed_clock_are_no_doubt():
    fixed = {"now_mhz": 921.6, "min_mhz": 921.6, "max_mhz": 921.6, "fixed": True}
    assert findings(with_conditions(power_mode={"id": 0, "name": "MAXN"}, gpu_clock=fixed)) == []


def rounds_of(factor, count=2):
    return rows_of([measurement(number=i, samples=[10.0 * factor, 10.1 * factor] * 70) for i in range(count)])


@pytest.mark.parametrize(("factor", "verdict"), [(0.5, "faster"), (2.0, "slower"), (1.0, "no difference")])
def test_compare_gives_a_verdict_with_its_interval(factor, verdict):
    item = compare(rounds_of(factor), rounds_of(1.0))[0]
    assert item.verdict == verdict
    assert item.ratio.low <= factor <= item.ratio.high
    assert item.notes == ()


def test_compare_does_not_take_what_differs_between_processes_for_a_difference():
    new = rows_of([measurement(samples=[10.0] * 200), measurement(number=1, samples=[11.0] * 201)])
    old = rows_of([measurement(samples=[10.5] * 200), measurement(number=1, samples=[10.4] * 200)])
    assert compare(new, old)[0].verdict == "too few rounds"


def test_compare_says_what_else_differs():
    old = rounds_of(1.0)
    new = [replace(old[0], runtime_version="1.21", machine={"cpu": "Other"}, threads=2)]
    assert compare(new, old)[0].notes == (
        "the machine differs",
        "the engine's version differs",
        "the number of threads differs",
    )


def test_compare_needs_rounds_on_both_sides():
    assert compare(rounds_of(1.0, 1), rounds_of(1.0))[0].verdict == "too few rounds"
    assert compare(rounds_of(1.0), []) == []
    assert list_unmatched(rounds_of(1.0), []) == ["m"]


def failed_row():
    values = {"status": "crashed", "error": "worker", "message": "it crashed", "hint": "try another"}
    return rows_of([Measurement(setup=Setup(id="bad", title="Bad", artifact=Path("bad.onnx")), round=0, values=values)])


def test_the_text_shows_numbers_failures_origin_doubts_and_comparison():
    rounds = [measurement(number=number, samples=[10.0] * 50) for number in range(2)]
    rows = rows_of(rounds) + failed_row()
    text = report.as_text(rows, findings(rows), compare(rows, rows_of(rounds)))
    table, failures, origin, compared = text.split("\n\n")
    heading, line = table.splitlines()
    assert heading.split("  ")[0] == "Setup"
    assert "onnxruntime 1.20" in line
    assert "10.00" in line
    assert "Energy" not in heading
    assert failures == "Bad: crashed: it crashed → try another"
    assert "measured on Test CPU, 4 cores, Test OS" in origin
    assert "seeded random numbers" in origin
    assert "p95 needs 130 runs" in origin
    assert compared.startswith("M: no difference (new/old time ")


def test_the_text_of_nothing_but_failures_has_no_table():
    assert report.as_text(failed_row()) == "Bad: crashed: it crashed → try another"


def test_columns_line_up():
    rows = rows_of([measurement(), measurement("a much longer name", samples=[1234.5] * 140)])
    lines = report.as_text(rows).split("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1


def test_markdown_is_a_table_and_lists():
    rows = rows_of([measurement("a|b")])
    lines = report.as_markdown(rows).splitlines()
    assert lines[1].startswith("| --- | --- | ---: |")
    assert "A\\|B" in lines[2]
    assert all(line.startswith("* ") for line in lines[4:])


def test_csv_has_full_precision_and_leaves_out_what_there_is_not():
    rows = rows_of([measurement(samples=[10.123456] * 10)]) + failed_row()
    good, bad = csv.DictReader(io.StringIO(report.as_csv(rows)))
    assert float(good["median_ms"]) == 10.123456
    assert good["p90_ms"] == ""
    assert (bad["status"], bad["median_ms"], bad["message"]) == ("crashed", "", "it crashed")


def test_json_is_read_back_by_compare(tmp_path):
    rows = rounds_of(1.0) + failed_row()
    rows[0] = replace(rows[0], first_ms=99.0)
    path = tmp_path / "old.json"
    path.write_text(report.as_json(rows, findings(rows), compare(rows, rows)))
    (first, _) = json.loads(path.read_text())
    assert first["findings"][0]["about"] == "m"
    assert first["comparison"]["verdict"] == "no difference"
    old = read_rows(path)
    assert json.dumps([row.to_json() for row in old]) == json.dumps([row.to_json() for row in rows])
    assert compare(rounds_of(1.0), old)[0].verdict == "no difference"
    assert old[1].status == "crashed"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[1]",
        b'[{"setup": 1}]',
        b'[{"setup": "m", "samples_ms": ["1"]}]',
        b"[" * 100_000,
        b'[{"setup": "m", "samples_ms": [1.0]}]',
        b'[{"setup": "m", "samples_ms": [1.0], "rounds": [{"runs": "2"}]}]',
    ],
)
def test_a_file_that_holds_no_rows_is_refused_in_one_line(content, tmp_path):
    path = tmp_path / "old.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_rows(path)
    assert str(path) in caught.value.message
    assert "edge bench" in caught.value.hint


def test_the_interval_of_a_row_is_that_of_its_samples():
    samples = [float(i) for i in range(100)]
    row = rows_of([measurement(samples=samples)])[0]
    interval = median_interval(samples)
    assert (row.low_ms, row.high_ms) == (interval.low, interval.high)


def test_setups_are_blocks_where_the_columns_do_not_fit():
    rows = rows_of([measurement("a"), measurement("b")])
    wide = report.as_text(rows).splitlines()[0]
    assert report.as_text(rows, width=len(wide)).splitlines()[0] == wide
    lines = report.as_text(rows, width=80).splitlines()
    assert lines[0].split() == ["Setup", "A"]
    assert ["Setup", "B"] in [line.split() for line in lines]
    assert max(map(len, lines[: lines.index("") * 2])) <= 80
