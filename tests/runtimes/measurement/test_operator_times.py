"""The times of a model's operators: they add up, and an engine that does not report them says why."""

from __future__ import annotations

import ctypes.util
from pathlib import Path

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.engine_support import litert_profiler
from runtimes.errors import UsageError
from runtimes.session import RunOptions, TensorEngine, example_feeds

MODELS = Path(__file__).parents[1] / "models"
# The operators that each engine runs of the same small model, after fusion.
KNOWN = {
    "litert": ("litert.tflite", "Fully Connected"),
    "onnxruntime": ("onnxruntime.onnx", "Gemm"),
    "openvino": ("openvino.xml", "FullyConnected"),
    "torch": ("torch.pt2", "aten::matmul"),
}
COUNT_MICROSECONDS = ("litert", "openvino")


@pytest.mark.parametrize("engine", KNOWN)
def test_an_engine_reports_its_operators_and_they_add_up(engine: str) -> None:
    name, operator = KNOWN[engine]
    if engine != "litert":
        pytest.importorskip(engine)
    artifact, adapter = Artifact.open(MODELS / name), litert() if engine == "litert" else registry.tensor_engine(engine)
    with adapter.open(artifact, RunOptions(threads=1)) as session:
        feeds = example_feeds(session.inputs)
    found = adapter.profile(artifact, RunOptions(threads=1), feeds, 5).to_json()
    assert found["runs"] == 5
    assert operator in {one["type"] for one in found["operators"]}
    assert all(one["placement"] and one["ms"] >= 0 for one in found["operators"])
    inside = sum(one["ms"] for one in found["operators"])
    assert inside + found["outside_ms"] == pytest.approx(found["total_ms"])
    # The profiler's clock is inside ours. A small model may take none of the whole microseconds that some count.
    assert 0 <= inside < found["total_ms"]
    assert inside > 0 or engine in COUNT_MICROSECONDS
    times = [one["ms"] for one in found["operators"]]
    assert times == sorted(times, reverse=True)


def test_an_engine_without_a_profiler_says_so() -> None:
    artifact = Artifact.open(MODELS / "null.null")
    with pytest.raises(UsageError, match="null does not report the times of operators") as refusal:
        registry.tensor_engine("null").profile(artifact, RunOptions(), {}, 3)
    assert all(engine in refusal.value.hint for engine in KNOWN)


def litert() -> TensorEngine:
    pytest.importorskip("ai_edge_litert")
    adapter = registry.tensor_engine("litert")
    if adapter.version() not in litert_profiler.KNOWN:
        pytest.skip(f"the profiler of LiteRT {adapter.version()} is not known")
    return adapter


def test_another_release_of_litert_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_profiler, "KNOWN", ("2.9.9",))
    with pytest.raises(UsageError, match=r"the profiler of LiteRT 2.3.0 is not known") as refusal:
        litert_profiler.profile(MODELS / "litert.tflite", "2.3.0", 1, {}, 3)
    assert "2.9.9" in refusal.value.hint


def test_a_model_that_the_c_library_does_not_read_has_no_profile(tmp_path: Path) -> None:
    model = tmp_path / "broken.tflite"
    model.write_bytes((MODELS / "litert.tflite").read_bytes()[:200])
    with pytest.raises(UsageError, match=r"does not take this model \(LiteRtCreateModelFromFile ended with status"):
        litert().profile(Artifact.open(model), RunOptions(), {}, 3)


def test_an_input_of_another_size_is_not_written() -> None:
    artifact, adapter = Artifact.open(MODELS / "litert.tflite"), litert()
    with adapter.open(artifact, RunOptions()) as session:
        spec = session.inputs[0]
    with pytest.raises(UsageError, match="does not take this model"):
        adapter.profile(artifact, RunOptions(), {spec.name: np.zeros((1, 10_000), spec.dtype)}, 3)


def test_a_library_that_ends_its_process_does_not_end_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    library = ctypes.util.find_library("c")
    assert library is not None
    monkeypatch.setattr(litert_profiler, "_library", lambda _: Path(library))
    with pytest.raises(UsageError, match=r"does not take this model .*LiteRtCreateEnvironment"):
        litert_profiler.profile(MODELS / "litert.tflite", "2.3.0", 1, {}, 3)
