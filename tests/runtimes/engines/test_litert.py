"""LiteRT: quantized models, models compiled for another chip, and the older runtime with numpy 2."""

from __future__ import annotations

import shutil
import sys

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.artifact.manifest import TensorSpec
from runtimes.engine_support import tflite
from runtimes.errors import EngineError, InputError
from runtimes.session import RunOptions
from runtimes.tensors import dequantize, quantize

WEIGHTS = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)


@pytest.fixture
def litert():
    pytest.importorskip("ai_edge_litert")
    return registry.tensor_engine("litert")


def test_a_quantized_model_tells_its_scales_and_answers_right(litert, models):
    with litert.open(Artifact.open(models / "quantized.tflite"), RunOptions(threads=2)) as session:
        assert session.threads == 2
        assert {spec.dtype for spec in (*session.inputs, *session.outputs)} == {"uint8"}
        generator = np.random.default_rng(0)
        real = {spec.shape[-1]: generator.uniform(-1, 1, (1, spec.shape[-1])) for spec in session.inputs}
        feeds = {spec.name: quantize(real[spec.shape[-1]], spec) for spec in session.inputs}
        answers = session.run(feeds)
        sums = next(spec for spec in session.outputs if spec.shape[-1] == 3)
        # Two steps: the input's rounding is multiplied by up to six, in a range of ±7.
        step = sums.quantization.scales[0]
        expected = real[4] @ WEIGHTS + real[3]
        np.testing.assert_allclose(dequantize(answers[sums.name], sums.quantization), expected, atol=2 * step)


def test_without_a_choice_it_says_that_it_uses_one_thread(litert, models):
    with litert.open(Artifact.open(models / "quantized.tflite"), RunOptions()) as session:
        assert session.threads == 1


def test_a_model_for_the_edge_tpu_is_refused_with_the_engine_to_use(litert, models, tmp_path):
    renamed = tmp_path / "renamed.tflite"
    shutil.copy(models / "edgetpu_edgetpu.tflite", renamed)
    with pytest.raises(InputError, match="compiled for the Edge TPU") as caught:
        litert.open(Artifact.open(renamed), RunOptions())
    assert "edgetpu" in caught.value.hint


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.0.0", reason="numpy 1 suits tflite_runtime")
def test_tflite_runtime_beside_numpy_2_gets_a_remedy(monkeypatch):
    monkeypatch.setattr(tflite, "import_engine", _import_beside_numpy_2)
    with pytest.raises(EngineError, match="multiarray failed to import") as caught:
        tflite.interpreter_module(registry.tensor_engine("litert"))
    assert "numpy<2" in caught.value.hint


def _import_beside_numpy_2(adapter, module):
    if module.startswith("ai_edge_litert"):
        raise EngineError("absent") from ModuleNotFoundError(module)
    raise EngineError("numpy.core.multiarray failed to import") from ImportError()


def test_only_tflite_runtime_is_enough(monkeypatch):
    asked = []

    def import_engine(adapter, module):
        asked.append(module)
        if module.startswith("ai_edge_litert"):
            raise EngineError("absent") from ModuleNotFoundError(module)
        return sys

    monkeypatch.setattr(tflite, "import_engine", import_engine)
    assert tflite.interpreter_module(registry.tensor_engine("litert")) is sys
    assert asked == ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"]


@pytest.mark.parametrize("content", [b"", b"short"])
def test_whether_a_file_is_compiled_is_known_for_any_bytes(tmp_path, content):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    if content:
        assert not tflite.is_compiled(path)
    else:
        with pytest.raises(InputError, match="cannot be read"):
            tflite.is_compiled(path)


def test_a_spec_per_channel_keeps_its_axis():
    detail = {
        "name": "x",
        "index": 0,
        "dtype": np.int8,
        "shape": np.array([2, 3]),
        "shape_signature": np.array([2, 3]),
        "quantization_parameters": {
            "scales": np.array([0.5, 0.25], np.float32),
            "zero_points": np.array([0, 1]),
            "quantized_dimension": 0,
        },
    }
    spec = tflite.specs([detail])[0]
    assert spec == TensorSpec("x", "int8", (2, 3), tflite.Quantization((0.5, 0.25), (0, 1), 0))
