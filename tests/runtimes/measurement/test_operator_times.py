"""The times of a model's operators: they add up, and an engine that does not report them says why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge.benchmark import Measurement, Setup, measure_all, rows_of
from edge.benchmark.profile_report import MAX_ROWS, OUTSIDE, text_sections
from edge.benchmark.report import as_json, as_text
from edge.benchmark.rows import read_rows
from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import UsageError
from runtimes.measurement.operator_times import OperatorTime, Profile
from runtimes.session import RunOptions, example_feeds

MODELS = Path(__file__).parents[1] / "models"
FEW = {"name": "published", "runs": 3, "pause_s": 0}
# The operators that each engine runs of the same small model, after fusion.
KNOWN = {"onnxruntime": ("onnxruntime.onnx", "Gemm"), "openvino": ("openvino.xml", "FullyConnected")}


@pytest.mark.parametrize("engine", KNOWN)
def test_an_engine_reports_its_operators_and_they_add_up(engine: str) -> None:
    pytest.importorskip(engine)
    name, operator = KNOWN[engine]
    artifact, adapter = Artifact.open(MODELS / name), registry.tensor_engine(engine)
    with adapter.open(artifact, RunOptions(threads=1)) as session:
        feeds = example_feeds(session.inputs)
    found = adapter.profile(artifact, RunOptions(threads=1), feeds, 5).to_json()
    assert found["runs"] == 5
    assert operator in {one["type"] for one in found["operators"]}
    assert all(one["placement"] and one["ms"] >= 0 for one in found["operators"])
    inside = sum(one["ms"] for one in found["operators"])
    assert inside + found["outside_ms"] == pytest.approx(found["total_ms"])
    assert 0 < inside < found["total_ms"]  # the profiler's clock is inside ours
    times = [one["ms"] for one in found["operators"]]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("engine", ["litert", "null"])
def test_an_engine_without_a_profiler_says_so(engine: str) -> None:
    artifact = Artifact.open(MODELS / f"{engine}.{'tflite' if engine == 'litert' else 'null'}")
    with pytest.raises(UsageError, match=f"{engine} does not report the times of operators"):
        registry.tensor_engine(engine).profile(artifact, RunOptions(), {}, 3)


def test_a_row_has_the_profile_of_its_first_round_only_if_it_is_asked_for(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = MODELS / "onnxruntime.onnx"
    setups = [Setup(name, name, model, protocol=FEW, profile=name == "with") for name in ("with", "without")]
    asked, other = rows_of(measure_all(setups, rounds=2))
    assert asked.profile is not None
    assert len(asked.samples_ms) == 6
    assert "profile" not in other.to_json()
    assert "with: operators in the mean of 30 runs" in as_text([asked, other])
    (tmp_path / "rows.json").write_text(as_json([asked, other]))
    assert read_rows(tmp_path / "rows.json")[0].profile == json.loads(json.dumps(asked.profile))


def test_a_setup_without_a_profiler_is_measured_and_told() -> None:
    setup = Setup("m", "m", MODELS / "null.null", protocol=FEW, profile=True)
    (row,) = rows_of(measure_all([setup], rounds=1))
    assert (row.status, row.profile, len(row.samples_ms)) == ("ok", None, 3)
    assert "m: no profile: null does not report the times of operators" in as_text([row])


def test_the_table_ends_with_what_is_outside_and_makes_the_sum_exact() -> None:
    operators = [OperatorTime(f"op{place}", "Conv", "CPU", 0.1) for place in range(MAX_ROWS + 5)]
    profile = Profile(10, 4.0, operators).to_json()
    values = {"status": "ok", "samples_ms": [4.0] * 10, "profile": profile}
    (text,) = text_sections(rows_of([Measurement(Setup("m", "m", Path("m")), 0, values)]), None)
    *_, rest, outside = text.splitlines()
    assert rest.split() == ["5", "more", "operators", "0.5000", "12.5%", "62.5%"]
    assert outside.startswith(OUTSIDE)
    assert outside.split()[2:] == ["1.5000", "37.5%", "100.0%"]
