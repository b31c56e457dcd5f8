"""Outputs that int8 cannot hold in one scale are split by the conversion; the page joins them, as the host does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import edge
from converters.library_calls import suppress_output
from runtimes.artifact import Artifact
from tests.npm import need_engines


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Boxes in pixels beside scores, in one output."""
    import keras

    need_engines()
    folder = tmp_path_factory.mktemp("joins")
    keras.utils.set_random_seed(0)
    signal = keras.Input((6,), name="signal")
    boxes = keras.layers.Rescaling(640.0)(keras.layers.Dense(4, activation="sigmoid")(signal))
    scores = keras.layers.Dense(3, activation="sigmoid")(signal)
    model = keras.Model(signal, keras.layers.Concatenate(name="out")([boxes, scores]))
    with suppress_output():
        model.save(folder / "m.keras")
    samples = np.random.default_rng(1).standard_normal((64, 6)).astype(np.float32)
    np.savez(folder / "samples.npz", signal=samples)
    made = edge.convert(folder / "m.keras", folder / "out", device="browser", calibration=folder / "samples.npz")
    assert made.artifact is not None
    return made.artifact


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, from NumPy 2
def test_the_page_proves_what_it_joins_and_finds_a_wrong_join(page, serve, split, changed: Callable[..., Path]) -> None:
    manifest = Artifact.open(split).manifest
    (join,) = manifest.join
    (spec,) = manifest.outputs
    assert (spec.name, spec.shape, spec.dtype) == (join.output, (1, 7), "float32")
    assert {one["name"] for one in manifest.conversion["browser"]["outputs"]} >= set(join.parts)
    opened = page(serve(split))
    assert opened.state == "passed", opened.text("main")
    wrong = changed(split, {})
    document = json.loads((wrong / "manifest.json").read_text())
    document["join"][0]["parts"].reverse()
    (wrong / "manifest.json").write_text(json.dumps(document))
    opened = page(serve(wrong))
    assert opened.state == "failed"
    assert opened.text("#headline").startswith("Proof failed.")
