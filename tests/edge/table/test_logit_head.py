from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.library_calls import suppress_output
from edge.table.logit_head import cut_softmax
from runtimes.arrays import Array
from runtimes.artifact import Artifact
from runtimes.errors import InputError
from runtimes.registry import for_format
from runtimes.session import RunOptions, example_feeds
from runtimes.tensors import dequantize, softmax
from tests.real_data import real_data

pytest.importorskip("ai_edge_litert")


def _small(path: Path, kind: str) -> Path:
    """A classifier of five classes; `kind` says how it ends: "float", "uint8" (QUANTIZE behind the softmax), "relu"."""
    with suppress_output():
        tf = pytest.importorskip("tensorflow")
        kernel = tf.constant(np.random.default_rng(0).uniform(-4, 4, (3, 5)), tf.float32)

        @tf.function(input_signature=[tf.TensorSpec((1, 3), tf.float32, name="x")])
        def forward(x: object) -> object:
            logits = tf.linalg.matmul(x, kernel)
            return tf.nn.relu(logits) if kind == "relu" else tf.nn.softmax(logits)

        converter = tf.lite.TFLiteConverter.from_concrete_functions([forward.get_concrete_function()])
        if kind == "uint8":
            samples = np.random.default_rng(1).uniform(-1, 1, (20, 1, 3)).astype(np.float32)
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([sample] for sample in samples)
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            converter.inference_input_type = converter.inference_output_type = tf.uint8
        path.write_bytes(converter.convert())
    return path


def _answer(model: Path) -> tuple[Array, str, Array]:
    """Real answers to seeded feeds, the output's dtype, and its scale and zero point."""
    with suppress_output(), for_format("tflite").open(Artifact.open(model), RunOptions()) as session:
        (output,) = session.outputs
        answers = [session.run(example_feeds(session.inputs, seed))[output.name] for seed in range(8)]
    known = output.quantization
    numbers = np.array([known.scales[0], known.zero_points[0]] if known else [])
    return dequantize(np.concatenate(answers), known), output.dtype, numbers


@pytest.mark.parametrize(("kind", "dtype", "limit"), [("float", "float32", 1e-6), ("uint8", "int8", 0.02)])
def test_the_softmax_of_the_answer_is_the_old_answer(kind: str, dtype: str, limit: float, tmp_path: Path) -> None:
    model = _small(tmp_path / "small.tflite", kind)
    probabilities, _, _ = _answer(model)
    logits, found, _ = _answer(cut_softmax(model, tmp_path / "logits.tflite"))
    assert found == dtype
    assert np.ptp(logits) > 1
    assert np.abs(softmax(logits) - probabilities).max() < limit


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    model = _small(tmp_path / "small.tflite", "uint8")
    first, second = (cut_softmax(model, tmp_path / name).read_bytes() for name in ("a.tflite", "b.tflite"))
    assert first == second
    assert len(first) < model.stat().st_size + 1000


def test_a_model_with_another_end_is_refused(tmp_path: Path) -> None:
    model = _small(tmp_path / "small.tflite", "relu")
    with pytest.raises(InputError, match=r"small\.tflite cannot be removed: the model ends with \w+"):
        cut_softmax(model, tmp_path / "out.tflite")
    assert not (tmp_path / "out.tflite").exists()


@pytest.mark.parametrize("kept", [0, 4, 8, 100, 500])
def test_a_truncated_model_is_refused(kept: int, tmp_path: Path) -> None:
    model = _small(tmp_path / "small.tflite", "float")
    model.write_bytes(model.read_bytes()[:kept])
    with pytest.raises(InputError, match=r"small\.tflite") as caught:
        cut_softmax(model, tmp_path / "out.tflite")
    assert "\n" not in caught.value.message


@pytest.mark.data
def test_the_published_file_ends_at_its_published_logits(tmp_path: Path) -> None:
    published = real_data("mobilenet_v2/mobilenet_v2_1.0_224_quant.tflite")
    cut = cut_softmax(published, tmp_path / "logits.tflite")
    logits, dtype, (scale, zero_point) = _answer(cut)
    assert (dtype, scale, zero_point) == ("uint8", 0.09889253973960876, 58)
    probabilities, _, _ = _answer(published)
    assert np.array_equal(logits.argmax(axis=1), softmax(logits).argmax(axis=1))
    assert np.abs(softmax(logits) - probabilities).max() < 2 / 256
