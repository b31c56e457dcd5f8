"""OpenVINO: exact by default, settings that reach the engine, and its errors."""

from __future__ import annotations

import shutil
import subprocess
import sys

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.engines import openvino as adapter
from runtimes.errors import EngineError, InputError
from runtimes.session import RunOptions, example_feeds

openvino = pytest.importorskip("openvino")


@pytest.fixture
def model(models):
    return Artifact.open(models / "openvino.xml")


@pytest.fixture
def configs(monkeypatch):
    """Every configuration that a model is compiled with."""
    seen = []
    compile_model = openvino.Core.compile_model

    def spy(core, model, device, config):
        seen.append(config)
        return compile_model(core, model, device, config)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    return seen


def open_it(model, **options):
    return registry.tensor_engine("openvino").open(model, RunOptions(**options))


def test_floats_stay_wide_unless_asked_otherwise(model, configs):
    open_it(model).close()
    open_it(model, settings={"inference_precision": "auto"}).close()
    assert configs[0]["INFERENCE_PRECISION_HINT"] == "f32"
    assert "INFERENCE_PRECISION_HINT" not in configs[1]


def test_threads_reach_the_engine_and_are_reported(model):
    with open_it(model, threads=1) as session:
        assert session.threads == 1
    with open_it(model) as session:
        assert session.threads >= 1


@pytest.mark.parametrize(
    ("saturates", "int8", "sent"), [(False, "precise", False), (True, "precise", True), (True, "fast", False)]
)
def test_int8_that_would_saturate_is_computed_precisely(model, configs, monkeypatch, saturates, int8, sent):
    monkeypatch.setattr(adapter, "int8_saturates", lambda: saturates)
    with open_it(model, settings={"int8": int8}) as session:
        session.run(example_feeds(session.inputs))
    assert ("LP_TRANSFORMS_MODE" in configs[0]) == sent


def test_onnx_is_opened_too(models):
    with open_it(Artifact.open(models / "onnxruntime.onnx")) as session:
        answers = session.run({"wide": np.eye(4, dtype=np.float32)[:1], "narrow": np.ones((1, 3), np.float32)})
    np.testing.assert_array_equal(answers["sum"], [[-5, -4, -3]])


def test_external_data_of_onnx_stays_in_its_folder(tmp_path):
    entry = b"\x0a\x08location\x12\x09../secret"
    initializer = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(initializer)]) + initializer
    (tmp_path / "m.onnx").write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(InputError, match="external data outside its folder"):
        open_it(Artifact.open(tmp_path / "m.onnx"))


def test_missing_weights_are_reported(model, tmp_path):
    shutil.copy(model.model, tmp_path)
    with pytest.raises(InputError, match=r"openvino\.xml: .*bin file cannot be found"):
        open_it(Artifact.open(tmp_path / "openvino.xml"))


def test_an_absent_device_is_an_error_that_lists_the_others(model):
    with pytest.raises(EngineError, match="openvino sees no NPU on this machine") as caught:
        open_it(model, device="npu")
    assert "cpu" in caught.value.hint


def test_a_failing_inference_is_an_error_of_the_engine(model):
    with open_it(model) as session, pytest.raises(EngineError, match="openvino failed to run the model") as caught:
        session.run({"wide": np.zeros((2, 4), np.float32), "narrow": np.zeros((3, 3), np.float32)})
    assert "\n" not in caught.value.message


def test_opening_a_model_sends_no_telemetry(model):
    code = (
        "import sys; from pathlib import Path; from runtimes.artifact import Artifact; from runtimes import registry\n"
        "from runtimes.session import RunOptions\n"
        "registry.tensor_engine('openvino').open(Artifact.open(Path(sys.argv[1])), RunOptions()).close()\n"
        "print(sorted(name for name in sys.modules if 'telemetry' in name and sys.modules[name] is not None))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(model.model)], stdout=subprocess.PIPE, check=True)
    assert b"openvino_telemetry" not in done.stdout


def test_a_signal_is_handled_after_two_models_were_open_at_once(models):
    """Two cores would leave the main thread a signal stack that is gone; see `_core`."""
    program = """
import pathlib, signal, sys
from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.session import RunOptions

def opened():
    return registry.tensor_engine("openvino").open(Artifact.open(pathlib.Path(sys.argv[1])), RunOptions())

signal.signal(signal.SIGINT, lambda *_: print("handled"))
one, two = opened(), opened()
one.close()
del one
two.close()
del two
signal.raise_signal(signal.SIGINT)
"""
    command = [sys.executable, "-c", program, str(models / "openvino.xml")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr
