"""The profile of a row: measured if it is asked for, and shown with what is outside the operators."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.benchmark import Measurement, Setup, measure_all, rows_of
from edge.benchmark.profile_report import MAX_ROWS, OUTSIDE, text_sections
from edge.benchmark.report import as_json, as_text
from edge.benchmark.rows import read_rows
from runtimes.engine_support import litert_profiler
from runtimes.measurement.operator_times import OperatorProfile, OperatorTime

MODELS = Path(__file__).parents[2] / "runtimes" / "models"
FEW = {"name": "published", "runs": 3, "pause_s": 0}


def test_a_row_has_the_profile_of_its_first_round_only_if_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = MODELS / "onnxruntime.onnx"
    setups = [
        Setup(id=name, title=name, artifact=model, protocol=FEW, profile=name == "with") for name in ("with", "without")
    ]
    asked, other = rows_of(measure_all(setups, rounds=2))
    assert asked.profile is not None
    assert len(asked.samples_ms) == 6
    assert "profile" not in other.to_json()
    assert "with: operators in the mean of 30 runs" in as_text([asked, other])
    (tmp_path / "rows.json").write_text(as_json([asked, other]))
    assert read_rows(tmp_path / "rows.json")[0].profile == json.loads(json.dumps(asked.profile))


@pytest.mark.data
def test_a_detector_with_boxes_of_a_size_that_its_file_does_not_say_has_a_profile(data: Path) -> None:
    litert = pytest.importorskip("ai_edge_litert")
    if litert.__version__ not in litert_profiler.KNOWN:
        pytest.skip(f"the profiler of LiteRT {litert.__version__} is not known")
    model = data / "real" / "traffic_model.tflite"
    setup = Setup(id="m", title="m", artifact=model, runtime="litert", protocol=FEW, profile=True)
    (row,) = rows_of(measure_all([setup], rounds=1))
    assert row.profile is not None
    assert "TFLite_Detection_PostProcess" in {one["type"] for one in row.profile["operators"]}


def test_a_setup_without_a_profiler_is_measured_and_reported() -> None:
    setup = Setup(id="m", title="m", artifact=MODELS / "null.null", protocol=FEW, profile=True)
    (row,) = rows_of(measure_all([setup], rounds=1))
    assert (row.status, row.profile, len(row.samples_ms)) == ("ok", None, 3)
    assert "m: no profile: null does not report the times of operators" in as_text([row])


def test_the_table_ends_with_what_is_outside_and_makes_the_sum_exact() -> None:
    operators = [OperatorTime(f"op{place}", "Conv", "CPU", 0.1) for place in range(MAX_ROWS + 5)]
    profile = OperatorProfile(10, 4.0, operators).to_json()
    values = {"status": "ok", "samples_ms": [4.0] * 10, "profile": profile}
    (text,) = text_sections(
        rows_of([Measurement(setup=Setup(id="m", title="m", artifact=Path("m")), round=0, values=values)]), None
    )
    *_, rest, outside = text.splitlines()
    assert rest.split() == ["5", "more", "operators", "0.5000", "12.5%", "62.5%"]
    assert outside.startswith(OUTSIDE)
    assert outside.split()[2:] == ["1.5000", "37.5%", "100.0%"]


def test_int8_beside_fp32_shows_which_types_of_operators_gain() -> None:
    fp32 = [OperatorTime("a", "FusedConv", "CPU", 2.0), OperatorTime("b", "Conv", "CPU", 1.0)]
    int8 = [OperatorTime("a", "QLinearConv", "CPU", 1.0), OperatorTime("q", "QuantizeLinear", "CPU", 0.2)]
    rows = rows_of(
        [
            Measurement(
                setup=Setup(id=precision, title=precision, artifact=Path("m")),
                round=0,
                values={
                    **{"status": "ok", "samples_ms": [4.0] * 10, "precision": precision, "runtime": "onnxruntime"},
                    "profile": OperatorProfile(10, 4.0, operators).to_json(),
                },
            )
            for precision, operators in (("fp32", fp32), ("int8", int8))
        ]
    )
    *_, gains = text_sections(rows, None)
    title, _, _, conv, quantize, outside = gains.splitlines()
    assert title == "int8 beside fp32: which types of operators gain"
    assert conv.split() == ["Conv", "3.0000", "1.0000", "3.00×"]
    assert quantize.split() == ["QuantizeLinear", "–", "0.2000", "–"]
    assert outside.split()[2:] == ["1.0000", "2.8000", "0.36×"]
    assert not any("which types" in one for one in text_sections(rows[:1], None))
