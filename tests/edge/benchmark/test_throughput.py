"""Rows of streams and batches: what is counted, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.benchmark import Setup, measure_all, rows_of
from edge.benchmark.report import as_text
from edge.benchmark.rows import Row
from edge.benchmark.runner import BenchOptions, run_benchmark
from runtimes.jobs import EngineOptions

MODELS = Path(__file__).parents[2] / "runtimes" / "models"
FEW = {"name": "published", "runs": 3, "pause_s": 0}


def measure(model: str, **more: object) -> Row:
    (row,) = rows_of(measure_all([Setup(id="m", title="m", artifact=MODELS / model, protocol=FEW, **more)], rounds=1))
    return row


def test_a_row_has_the_throughput_of_its_first_round_only_if_it_is_asked_for() -> None:
    row = measure("null.null", streams=2, options=EngineOptions(threads=1))
    assert row.throughput is not None
    assert (row.throughput["streams"], row.throughput["threads"]) == (2, 1)
    assert row.throughput["runs"] > 0
    assert "(2 × 1 threads)" in as_text([row])
    assert {"throughput", "batch"}.isdisjoint(measure("null.null").to_json())


def test_a_batch_is_repeated_and_its_items_count() -> None:
    pytest.importorskip("ai_edge_litert")
    row = measure("quantized.tflite", batch=4)
    assert (row.status, row.batch) == ("ok", 4)
    assert row.fps == pytest.approx(4000 / row.median_ms)


def test_a_fixed_batch_is_refused_with_what_to_do(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    values = [helper.make_tensor_value_info(name, kind, [1, 3]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "fixed", values[:1], values[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "fixed.onnx").write_bytes(model.SerializeToString())
    (row,) = rows_of(
        measure_all([Setup(id="m", title="m", artifact=tmp_path / "fixed.onnx", protocol=FEW, batch=4)], rounds=1)
    )
    assert (row.status, row.message) == ("unsupported", "the batch of input 'x' is fixed: [1, 3]")
    assert "free batch" in row.hint


def test_each_batch_is_a_setup() -> None:
    options = BenchOptions(protocol="published", runs=3, rounds=1, batches=(1, 2))
    report = run_benchmark([MODELS / "quantized.tflite"], options, None, lambda _: None)
    assert [row.setup for row in report.rows] == [f"quantized.tflite, batch {batch}, litert" for batch in (1, 2)]
    assert [row.batch for row in report.rows] == [1, 2]
