"""An engine that later answers the same input differently is found, and the inference is named."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes import artifact as artifacts
from runtimes.artifact import Artifact, Manifest, SelfCheck, TensorSpec
from runtimes.registry import tensor_engine
from runtimes.session import CheckedSession, RunOptions
from runtimes.verification.soak import FEWEST, soak, soak_artifact, soak_sequence

INPUT, OUTPUT = TensorSpec("x", "float32", (1, 3)), TensorSpec("y", "float32", (1, 3))
SAMPLES = {"x": np.arange(12, dtype=np.float32).reshape(4, 1, 3)}
LEAK_BYTES = 1_000_000


class Engine(CheckedSession):
    """Doubles its input; from inference `wrong_from` on, or after another input, it adds what `noise` says."""

    def __init__(self, wrong_from=None, after_others=False, noise=0.5, state=0.0):
        super().__init__((INPUT,), (OUTPUT,))
        self.count, self.seen, self.state = 0, set(), state
        self._wrong_from, self._after_others, self._noise = wrong_from, after_others, noise

    def _run(self, feeds):
        self.count += 1
        self.seen.add(feeds["x"].tobytes())
        wrong = self._wrong_from is not None and self.count >= self._wrong_from
        wrong |= self._after_others and len(self.seen) > 1 and feeds["x"].tobytes() == SAMPLES["x"][0].tobytes()
        return {"y": feeds["x"] * 2 + np.float32(self._noise if wrong else 0)}


def test_a_right_engine_passes_with_three_inferences_at_least():
    found = soak(Engine(), SAMPLES, seconds=0)
    assert found.difference == ""
    assert found.inferences == FEWEST


@pytest.mark.parametrize("count", [100, 1000])
def test_as_many_inferences_as_asked_for_over_all_samples(count):
    engine = Engine()
    assert soak(engine, SAMPLES, count=count).inferences == engine.count == count
    assert len(engine.seen) == len(SAMPLES["x"])


@pytest.mark.parametrize("wrong_from", [2, 3, 50])
def test_garbage_from_an_inference_on_is_named(wrong_from):
    found = soak(Engine(wrong_from=wrong_from), SAMPLES, count=100)
    assert (
        f"inference {found.inferences} differs from inference 1 on the same input: output 'y' by 0.5"
        in found.difference
    )
    assert wrong_from <= found.inferences <= wrong_from + 1


def test_garbage_from_the_second_inference_is_found_without_asking():
    assert "inference 2 differs" in soak(Engine(wrong_from=2), SAMPLES, seconds=0).difference


def test_what_another_input_leaves_behind_is_found():
    assert "inference 4 differs from inference 1" in soak(Engine(after_others=True), SAMPLES, count=10).difference


@pytest.mark.parametrize("noise", [np.nan, np.inf])
def test_values_that_are_not_finite_are_found(noise):
    assert "not finite" in soak(Engine(wrong_from=2, noise=noise), SAMPLES).difference


def test_rounding_is_not_a_difference():
    assert soak(Engine(wrong_from=2, noise=1e-6), {"x": SAMPLES["x"] + 1}, count=10).difference == ""


class Summing(Engine):
    """Adds up all that it was given: a state."""

    def _run(self, feeds):
        self.state = self.state + feeds["x"]
        return {"y": np.asarray(self.state)}


def test_a_state_is_no_fault_after_a_reset():
    assert "differs" in soak(Summing(), SAMPLES, seconds=0).difference
    assert soak_sequence(Summing, SAMPLES, count=50).difference == ""
    assert soak_sequence(Summing, SAMPLES, count=50).inferences >= 50


def test_a_state_that_survives_a_reset_is_found():
    states = iter(range(100))
    found = soak_sequence(lambda: Summing(state=float(next(states))), SAMPLES)
    assert "inference 1 after a reset differs" in found.difference


def test_an_artifact_says_whether_it_has_a_state(tmp_path):
    (tmp_path / "model.null").write_bytes(b"0")
    manifest = Manifest("m", "null", "fp32", "model.null", selfcheck=SelfCheck("max_abs", 0.1, "synthetic"))
    outputs = {"y": np.cumsum(SAMPLES["x"], axis=0)}
    artifacts.write(tmp_path, manifest, SAMPLES, outputs)
    assert "differs" in soak_artifact(Artifact.open(tmp_path), Summing(), Summing).difference
    manifest = Manifest(
        "m", "null", "fp32", "model.null", selfcheck=SelfCheck("max_abs", 0.1, "synthetic", stateful=True)
    )
    artifacts.write(tmp_path, manifest, SAMPLES, outputs)
    assert soak_artifact(Artifact.open(tmp_path), Summing(), Summing).difference == ""


@pytest.mark.parametrize(
    ("engine", "model", "library"),
    [
        ("onnxruntime", "onnxruntime.onnx", "onnxruntime"),
        ("litert", "litert.tflite", "ai_edge_litert"),
        ("openvino", "openvino.xml", "openvino"),
    ],
)
def test_no_engine_leaks_from_the_100th_to_the_1000th_inference(models, engine, model, library):
    pytest.importorskip(library)
    adapter = tensor_engine(engine)
    artifact = Artifact.open(models / model)
    with adapter.open(artifact, RunOptions(threads=1)) as session:
        feeds = {
            spec.name: np.random.default_rng(0)
            .standard_normal((4, *[size if isinstance(size, int) else 1 for size in spec.shape]))
            .astype(spec.dtype)
            for spec in session.inputs
        }
        found = soak(session, feeds, count=1000)
    assert found.difference == ""
    assert found.inferences == 1000
    assert found.memory_growth_bytes is None or found.memory_growth_bytes < LEAK_BYTES
