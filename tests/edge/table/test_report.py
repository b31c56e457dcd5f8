from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from device_profiles.published import published_rows
from edge.benchmark.rows import Row
from edge.table.agreement import TableAgreement
from edge.table.bundle import Bundle
from edge.table.footnotes import best_row, notes_of
from edge.table.images import Pictures
from edge.table.measure import MeasuredTable
from edge.table.report import as_csv, as_json, as_markdown
from edge.table.rows import TableRow, row_of_absent, row_of_published, row_of_setup
from edge.table.setups import AbsentSetup, TableSetup
from runtimes.artifact.json_fields import Fields

PICTURES = Pictures(benchmark=np.zeros((1, 2, 2, 3), np.uint8), calibration=np.zeros((1, 2, 2, 3), np.uint8))
BUNDLE = Bundle(
    path=Path("bundle"),
    weights="weights.safetensors, 1001 classes",
    trained=True,
    picture="magpie.jpg",
    pictures=PICTURES,
)


CALM = {"governor": None, "load_average": 0.1, "temperature_c": None, "throttling": None}
# What ARCHITECTURE promises to whoever reads `edge bench --json`, and `edge table --json`, which adds "source".
PROMISED = {
    *("setup", "runtime", "runtime_version", "threads", "precision", "status", "samples_ms", "median_ms", "load_ms"),
    *("first_ms", "peak_rss_bytes", "top", "raw", "source"),
}


def _measured(name: str, seconds: float, precision: str = "fp32", **more: Any) -> Row:
    values: dict[str, Any] = {
        "setup": name,
        "status": "ok",
        "precision": precision,
        "total_s": seconds,
        "threads": 1,
        "rounds": [{"runs": 250, "conditions": {"before": CALM, "after": CALM}}] * 2,
        "machine": {"cpu": "Test CPU", "logical_cores": 2, "os": "Test OS"},
        "top": [{"index": 18, "label": "magpie", "probability": 0.9691}],
        "raw": 0.9691,
        **more,
    }
    values["samples_ms"] = [seconds * 4] * sum(part["runs"] for part in values["rounds"])
    return Row.from_json(Fields(values, "the test"))


def _row(name: str, seconds: float, trained: bool = True, **more: Any) -> TableRow:
    setup = TableSetup(id=name, title=name.upper(), artifact="onnx-fp32", runtime="onnxruntime", threads=1)
    return row_of_setup(setup, _measured(name, seconds, **more), trained)


def _agreement(precision: str = "fp32", same: int = 100, difference: float = 1e-6) -> TableAgreement:
    return TableAgreement(
        pictures=100, same_top1=same, max_difference=difference, correct=88, reference_correct=88, precision=precision
    )


def test_a_browsers_row_names_it_and_its_time_beside_the_native_one() -> None:
    browser = {"runtime": "litert_js", "runtime_version": "2.1", "browser": {"name": "Chromium 156"}}
    rows = [_row("tflite-int8-1t", 1.0), _row("browser-tflite-int8-1t", 5.0, **browser)]
    line = "BROWSER-TFLITE-INT8-1T: litert_js 2.1 in Chromium 156, 5.0× the time of TFLITE-INT8-1T."
    assert line in notes_of(rows, BUNDLE, {})


def test_the_published_rows_read_as_in_the_article() -> None:
    lines = as_markdown([row_of_published(row) for row in published_rows()], []).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:12]]
    assert cells[0] == ["i7-4870HQ", "published 2019", "22.60", "11.06", "magpie", "0.9294", "0.9294"]
    assert cells[2] == ["i7-7700K (tflite)", "published 2019", "7.71", "32.43", "magpie", "–", "16.2184"]
    assert [row[0] for row in cells[-2:]] == ["Raspberry Pi 3B+ + Coral", "Jetson Nano + Coral"]


def test_a_measured_row_shows_time_fps_class_score_and_raw() -> None:
    line = as_markdown([_row("ort", 2.0)], []).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")] == [
        "this machine, ORT", "measured", "2.00", "125.00", "magpie", "0.9691", "0.9691",
    ]  # fmt: skip


def test_without_trained_weights_no_answer_is_shown() -> None:
    line = as_markdown([_row("ort", 2.0, trained=False)], []).splitlines()[2]
    assert [cell.strip() for cell in line.strip("|").split("|")][4:] == ["not evaluated", "not evaluated", "–"]
    assert "magpie" not in line


def test_a_crash_is_a_row_that_says_so() -> None:
    setup = TableSetup(id="ort", title="ORT", artifact="onnx-fp32", runtime="onnxruntime", threads=1)
    row = row_of_setup(setup, Row(setup="ort", status="crashed", message="SIGSEGV"), True)
    assert "crashed: SIGSEGV" in as_markdown([row], [])
    assert row.fps is None


def test_json_keeps_the_keys_of_bench_and_adds_the_source() -> None:
    rows = json.loads(
        as_json(
            [
                row_of_published(published_rows()[0]),
                _row("ort", 2.0),
                row_of_absent(AbsentSetup(id="x", title="X", needs="a GPU")),
            ]
        )
    )
    assert [row["source"] for row in rows] == ["published 2019", "measured", "needs a GPU"]
    assert [PROMISED - set(row) for row in rows] == [set(), set(), set()]


def test_csv_has_one_line_a_row_in_full_precision() -> None:
    (row,) = csv.DictReader(io.StringIO(as_csv([_row("ort", 3.0)])))
    assert float(row["fps"]) == pytest.approx(250 / 3, rel=1e-12)


def test_csv_contains_the_energy_of_one_classification() -> None:
    rows = [_row("ort", 3.0, energy_per_run_j=0.25), row_of_published(published_rows()[0])]
    found = csv.DictReader(io.StringIO(as_csv(rows)))
    assert [row["energy_per_run_j"] for row in found] == ["0.25", ""]


def test_the_best_setup_is_the_fastest_with_right_answers() -> None:
    rows = [_row("keras-predict-2t", 16.0), _row("fast", 0.5, precision="int8"), _row("right", 1.0)]
    agreed = {"keras-predict-2t": _agreement(), "fast": _agreement("int8", same=90), "right": _agreement()}
    best = best_row(rows, agreed)
    assert best is not None
    assert best.id == "right"
    notes = notes_of(rows, BUNDLE, agreed)
    assert notes[-1] == (
        "Best for this machine: RIGHT, 250.0 fps, 16.0× as fast as the published setup (Keras predict)."
    )
    assert any(line.startswith("- WRONG") and line.endswith("FAST") for line in notes)


def test_a_network_with_weights_of_its_own_is_never_the_best() -> None:
    rows = [_row("other", 0.1, precision="int8"), _row("ours", 1.0)]
    agreed = {
        "other": TableAgreement(
            pictures=100,
            same_top1=90,
            max_difference=0.5,
            correct=95,
            reference_correct=88,
            precision="int8",
            own_weights=True,
        ),
        "ours": _agreement(),
    }
    best = best_row(rows, agreed)
    assert best is not None
    assert best.id == "ours"


def test_the_notes_say_what_saturating_kernels_would_gain() -> None:
    rows = [_row("openvino-int8-2t", 1.5, precision="int8"), _row("openvino-int8-fast-2t", 1.0, precision="int8")]
    assert any("1.50× as fast as the precise setting" in line for line in notes_of(rows, BUNDLE, {}))


def test_the_notes_name_times_that_trtexec_measured() -> None:
    rows = [_row("ort", 1.0), _row("trt", 2.0, protocol={"name": "trtexec"}, top=[], raw=None)]
    (line,) = [line for line in notes_of(rows, BUNDLE, {}) if "trtexec" in line]
    assert line.startswith("TRT: times reported by the board's own trtexec, with random inputs")
    assert not any("trtexec" in line for line in notes_of(rows[:1], BUNDLE, {}))


def test_the_notes_say_why_a_model_is_missing() -> None:
    bundle = Bundle(
        path=Path("b"),
        weights="w",
        trained=True,
        picture="p",
        pictures=PICTURES,
        missing={"tflite-2019": "it is not here"},
    )
    row = row_of_absent(
        AbsentSetup(id="tflite-2019-1t", title="X", needs="the model tflite-2019 (see below)", model="tflite-2019")
    )
    assert "Not built here: tflite-2019, because it is not here." in notes_of([row, _row("a", 1.0)], bundle, {})
    assert not any("tflite-2019" in line for line in notes_of([_row("a", 1.0)], bundle, {}))


def test_the_notes_give_each_reason_of_a_missing_source_once():
    missing = {"keras-fp32": "no memory", "onnx-fp32": "it is made from keras-fp32", "pt2-fp32": "no PyTorch"}
    rows = [
        row_of_absent(
            AbsentSetup(id="onnxruntime-fp32-1t", title="X", needs="the model onnx-fp32 (see below)", model="onnx-fp32")
        )
    ]
    notes = notes_of(
        rows, Bundle(path=Path("b"), weights="w", trained=True, picture="p", pictures=PICTURES, missing=missing), {}
    )
    assert [line for line in notes if line.startswith("Not built here")] == [
        "Not built here: keras-fp32, because no memory.",
        "Not built here: onnx-fp32, because it is made from keras-fp32.",
    ]


def _failed(name: str, error: str = "worker") -> TableRow:
    setup = TableSetup(id=name, title=name.upper(), artifact="onnx-fp32", runtime="onnxruntime", threads=1)
    measured = Row(setup=name, status="timeout", error=error, message="out of time", hint="allow more")
    return row_of_setup(setup, measured, True)


def test_setups_that_failed_the_same_way_share_their_hint():
    notes = notes_of([_failed("a"), _failed("b"), _row("c", 1.0)], BUNDLE, {})
    assert "A; B: allow more." in notes


def test_the_notes_say_how_many_cores_other_processes_used():
    part = {"runs": 250, "conditions": {"before": CALM, "after": CALM}}
    rows = [_row("a", 1.0, rounds=[part, {**part, "other_cores": 1.3}]), _row("b", 1.0, rounds=[part])]
    (line,) = [line for line in notes_of(rows, BUNDLE, {}) if "measure again" in line]
    assert line.startswith("Other processes kept up to 1.3 cores busy during the measurement, so 1 of 2 setups")
    assert not any("measure again" in line for line in notes_of(rows[1:], BUNDLE, {}))


def test_the_notes_report_the_state_of_the_machine_with_the_remedy():
    slow = {"runs": 250, "conditions": {"before": CALM, "after": {**CALM, "governor": "powersave"}}}
    notes = notes_of([_row("a", 1.0, rounds=[slow])], BUNDLE, {})
    assert any(
        line.startswith("This machine: the CPU frequency governor is powersave; echo performance | sudo tee")
        for line in notes
    )


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        ([_row("a", 1.0), _failed("b")], 0),
        ([_failed("b"), _failed("c", "engine")], 8),
        ([row_of_absent(AbsentSetup(id="x", title="X", needs="a GPU"))], 4),
    ],
)
def test_the_status_is_that_of_the_first_failure_where_nothing_was_measured(rows, status):
    assert MeasuredTable(rows=rows, notes=[], stopped=False).exit_code == status


def test_the_notes_say_if_predictions_were_not_compared():
    words = "The predictions were not compared"
    assert any(line.startswith(words) for line in notes_of([_row("a", 1.0)], BUNDLE, {}))
    assert not any(line.startswith(words) for line in notes_of([_row("a", 1.0)], BUNDLE, {"a": _agreement()}))
    assert not any(line.startswith(words) for line in notes_of([_failed("a")], BUNDLE, {}))
