"""The times of a model's operators: they add up, and an engine that does not report them says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.errors import UsageError
from runtimes.session import RunOptions, example_feeds

MODELS = Path(__file__).parents[1] / "models"
# The operators that each engine runs of the same small model, after fusion.
KNOWN = {
    "onnxruntime": ("onnxruntime.onnx", "Gemm"),
    "openvino": ("openvino.xml", "FullyConnected"),
    "torch": ("torch.pt2", "aten::matmul"),
}


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
    # The profiler's clock is inside ours. OpenVINO counts whole microseconds, of which so small a model may take none.
    assert 0 <= inside < found["total_ms"]
    assert inside > 0 or engine == "openvino"
    times = [one["ms"] for one in found["operators"]]
    assert times == sorted(times, reverse=True)


@pytest.mark.parametrize("engine", ["litert", "null"])
def test_an_engine_without_a_profiler_says_so(engine: str) -> None:
    artifact = Artifact.open(MODELS / f"{engine}.{'tflite' if engine == 'litert' else 'null'}")
    with pytest.raises(UsageError, match=f"{engine} does not report the times of operators"):
        registry.tensor_engine(engine).profile(artifact, RunOptions(), {}, 3)
