"""fp16 weights in TFLite: layers whose values overflow on the GPU delegate are refused by name."""

from __future__ import annotations

import numpy as np
import pytest

import edge
from runtimes.errors import RefusedError

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
pytest.importorskip("ai_edge_litert")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with numpy 2


def network(path, strength: float):
    start = keras.Input((8,), name="x")
    dense = keras.layers.Dense(16, name="dense")
    middle = dense(start)
    squares = keras.layers.Multiply(name="squares")([middle, middle])
    model = keras.Model(start, keras.layers.Dense(3, name="last")(squares))
    weights = np.random.default_rng(0).normal(size=(8, 16)).astype(np.float32)
    dense.set_weights([weights * strength, np.zeros(16, np.float32)])
    model.save(path)
    return path


def test_a_keras_model_that_overflows_is_refused_by_name_and_a_smaller_one_passes(tmp_path):
    loud = network(tmp_path / "loud.keras", 300)
    with pytest.raises(RefusedError, match=r"squares.* \(MUL\) reaches .*; fp16 ends at 65504"):
        edge.convert(loud, tmp_path / "a", format="tflite", precision="fp16")
    with pytest.raises(RefusedError, match=r"the constant .* exceeds the range"):
        edge.convert(network(tmp_path / "wide.keras", 1e5), tmp_path / "b", format="tflite", precision="fp16")
    made = edge.convert(network(tmp_path / "near.keras", 3), tmp_path / "c", format="tflite", precision="fp16")
    assert made.proof["passed"]
