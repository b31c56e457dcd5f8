"""The real models on the real picture: numbers that were published or measured before."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.artifact.manifest import OutputMeaning, Preprocess
from runtimes.errors import InputError
from runtimes.session import RunOptions
from runtimes.tasks.classification import ClassScores
from runtimes.tensors import pixels_to_input

pytestmark = pytest.mark.data

AS_TRAINED = Preprocess("shorter_side", 256, (224, 224), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
MEANING = OutputMeaning("probability", 1)
MAGPIE = 18


@pytest.fixture
def magpie(data):
    """uint8 [224, 224, 3]: the shorter side resized to 256, the center cropped."""
    image_module = pytest.importorskip("PIL.Image")
    with image_module.open(data / "imagenet" / "benchmark" / "n01582220_magpie.jpg") as opened:
        picture = opened.convert("RGB")
    share = 256 / min(picture.size)
    width, height = (round(side * share) for side in picture.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    resized = picture.resize((width, height), image_module.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


@pytest.mark.parametrize("threads", [None, 1, 2])
@pytest.mark.parametrize(
    ("name", "score"),
    [("mobilenet_v2_1.0_224_quant.tflite", 255 / 256), ("tf2_mobilenet_v2_1.0_224_ptq.tflite", 0.9140625)],
)
def test_the_magpie_scores_what_it_scored(data, magpie, name, score, threads):
    pytest.importorskip("ai_edge_litert")
    model = Artifact.open(data / "mobilenet_v2" / name)
    with registry.tensor_engine("litert").open(model, RunOptions(threads=threads)) as session:
        feeds = {session.inputs[0].name: pixels_to_input(magpie, session.inputs[0], AS_TRAINED)}
        output = session.run(feeds)[session.outputs[0].name]
        spec = session.outputs[0]
    assert spec.shape == (1, 1001)
    result = ClassScores(spec, MEANING, count=1).decode({spec.name: output})
    assert result.to_json() == [{"index": MAGPIE, "label": None, "probability": score}]
    assert result.raw == score


def test_every_compiled_model_is_known_as_one(data):
    pytest.importorskip("ai_edge_litert")
    compiled = sorted(data.glob("**/*_edgetpu.tflite"))
    assert compiled
    for path in compiled:
        bare = Artifact.open(path)
        assert bare.manifest.format == "edgetpu"
        with pytest.raises(InputError, match="compiled for the Edge TPU"):
            registry.tensor_engine("litert").open(bare, RunOptions())


def test_an_operator_that_litert_lacks_is_named(data):
    pytest.importorskip("ai_edge_litert")
    broken = Artifact.open(data / "edgetpu" / "invalid" / "model_invoking_error.tflite")
    with pytest.raises(InputError, match="unresolved custom op: fake-op-double"):
        registry.tensor_engine("litert").open(broken, RunOptions())
