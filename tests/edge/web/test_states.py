"""A model that keeps a state: the page checks its answers in order from a reset state, as the host does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

import edge
from edge.conversion.datasets import ConversionInputs
from runtimes.artifact import Artifact
from tests.npm import need_engines

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Keras' own, from NumPy 2


@pytest.fixture(scope="module", params=["litert_js", "ort_web"])
def stateful(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network whose LSTM goes on from one inference to the next: in variables, or as inputs and outputs."""
    import keras

    need_engines()
    folder = tmp_path_factory.mktemp("stateful")
    memory = keras.layers.LSTM(8, stateful=True, name="memory")
    keras.Sequential([keras.Input(batch_shape=(1, 5, 6), name="x"), memory]).save(folder / "model.keras")
    samples = np.random.default_rng(3).normal(size=(6, 1, 5, 6)).astype(np.float32)
    np.savez(folder / "samples.npz", x=samples)
    inputs = ConversionInputs(calibration=folder / "samples.npz")
    source = folder / "model.keras"
    if request.param == "ort_web":
        source = edge.convert(source, folder / "onnx", format="onnx", precision="fp32", inputs=inputs).artifact
    made = edge.convert(source, folder / "made", format="browser", precision="fp32", inputs=inputs).artifact
    assert (made / "engine" / request.param).is_dir()
    return made


def test_it_is_proven_in_the_page(page, serve, stateful) -> None:
    rule = Artifact.open(stateful).manifest.selfcheck
    assert rule is not None
    assert rule.stateful
    opened = page(serve(stateful))
    opened.until(lambda: opened.find("#verdict").get_attribute("data-inferences") == "100")
    assert opened.state == "passed", opened.text("main")
    assert "takes no pictures" in opened.text("#no-pictures")


def test_it_is_verified_by_the_command(stateful, browser) -> None:
    assert edge.verify(stateful, on="browser").passed


def test_a_page_that_does_not_reset_the_state_is_seen(page, serve, stateful, changed) -> None:
    module = f"page/engines/{next((stateful / 'engine').iterdir()).name}.js"
    source = (stateful / module).read_text()
    reset = "  async reset() {\n"
    assert source.count(reset) == 1
    opened = page(serve(changed(stateful, {module: source.replace(reset, f"{reset}    return;\n").encode()})))
    assert opened.state == "failed"
    assert "from the second inference on" in opened.text("#headline")
