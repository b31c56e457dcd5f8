"""What a bare model file specifies, what is assumed and printed, and what the user has to specify."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.inference.facts import facts_of
from edge.inference.input_defaults import preprocess_of
from edge.inference.prepared_model import complete_model
from edge.inference.preprocessing import ModelHints, PreprocessOptions
from edge.inspection import Inspection
from runtimes.artifact import Artifact, Manifest, OutputMeaning, Preprocess, Quantization, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.model_files.facts import Labels, ModelFacts, Producer
from runtimes.task import PictureDefaults
from runtimes.tasks.classification import ClassScores
from runtimes.tensors import pixels_to_input
from tests.real_data import real_data

FLOAT = TensorSpec("x", "float32", (1, 8, 8, 3))
PIXELS = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
BARE = Artifact(Path("folder"), Manifest("model", "tflite", "unknown", "model.tflite"))
SCALED = PreprocessOptions(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3)


def never() -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    raise AssertionError("the file tells all")


def found(**facts: object) -> Inspection:
    return Inspection(**{"format": "tflite", "inputs": (), "outputs": (), "ops": {}, "precision": "fp32", **facts})


def quantized(dtype: str, scale: float, zero_point: int, shape=(1, 16, 16, 3)) -> TensorSpec:
    return TensorSpec("x", dtype, shape, Quantization((scale,), (zero_point,)))


NO_OPTIONS = PreprocessOptions()


def prepared(spec: TensorSpec, said: PreprocessOptions = NO_OPTIONS, **facts: object) -> tuple[Preprocess, list[str]]:
    assumptions: list[str] = []
    return preprocess_of(BARE, spec, said, found(**facts), assumptions), assumptions


# ---- pictures


@pytest.mark.parametrize(("dtype", "scale", "zero_point"), [("uint8", 0.0078125, 128), ("uint8", 1 / 255, 0)])
def test_a_quantized_input_gets_the_pixels_as_they_are(dtype, scale, zero_point):
    spec = quantized(dtype, scale, zero_point)
    preprocess, assumptions = prepared(spec)
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS).all()
    assert any("pixels are passed unscaled" in line and "--preprocess" in line for line in assumptions)


def test_a_signed_input_gets_the_pixels_less_128():
    spec = quantized("int8", 0.02, -10)
    assert (pixels_to_input(PIXELS, spec, prepared(spec)[0])[0] == PIXELS.astype(int) - 128).all()


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_integers_without_quantization_are_pixels(dtype):
    spec = TensorSpec("x", dtype, (1, 3, 16, 16))
    preprocess, _ = prepared(spec)
    assert preprocess.layout == "NCHW"
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS.transpose(2, 0, 1)).all()


def test_metadata_that_agrees_with_the_quantization_feeds_exact_pixels():
    # (p − 127.5) ÷ 127.5 at scale 1/127.5 and zero point 127 is p − 0.5: rounding it would lose every second pixel.
    spec = quantized("uint8", 1 / 127.5, 127)
    preprocess, assumptions = prepared(spec, metadata={"mean": [127.5], "std": [127.5]})
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS).all()
    assert any("cancel out" in line for line in assumptions)


def test_metadata_that_says_otherwise_is_followed():
    spec = quantized("uint8", 1 / 64, 128)
    preprocess, assumptions = prepared(spec, metadata={"mean": [127.5], "std": [127.5]})
    assert (preprocess.mean, preprocess.scale) == ((127.5,) * 3, (1 / 127.5,) * 3)
    assert not any("pixels are passed" in line for line in assumptions)


@pytest.mark.parametrize("dtype", ["uint8", "int32"])
def test_bytes_without_quantization_hold_no_scaled_pixels(dtype):
    spec = TensorSpec("x", dtype, (1, 16, 16, 3))
    preprocess, assumptions = prepared(spec, metadata={"mean": [0.0], "std": [255.0]})
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS).all()
    assert any("cannot hold scaled pixels" in line for line in assumptions)
    shifted, _ = prepared(spec, metadata={"mean": [100.0], "std": [1.0]})  # this much they hold
    assert shifted.mean == (100.0,) * 3


def test_metadata_per_channel():
    preprocess, _ = prepared(FLOAT, metadata={"mean": [1.0, 2.0, 3.0], "std": [4.0, 5.0, 8.0]})
    assert (preprocess.mean, preprocess.scale) == ((1.0, 2.0, 3.0), (0.25, 0.2, 0.125))


@pytest.mark.parametrize(
    ("words", "mean", "scale"),
    [("NominalRange_0_255", 0, 1), ("Normalized_0_1", 0, 1 / 255), ("Normalized_1_1", 127.5, 1 / 127.5)],
)
def test_onnx_image_metadata(words, mean, scale):
    properties = {"Image.NominalPixelRange": words, "Image.BitmapPixelFormat": "Bgr8"}
    preprocess, assumptions = prepared(FLOAT, metadata={"properties": properties})
    assert (preprocess.mean[0], preprocess.scale[0], preprocess.color) == (mean, scale, "BGR")
    assert not any("colors" in line for line in assumptions)


@pytest.mark.parametrize("metadata", [{}, {"mean": [127.5], "std": [0.0]}, {"mean": [1.0, 2.0], "std": [1.0, 1.0]}])
def test_how_floats_are_scaled_is_asked_for(metadata):
    with pytest.raises(UsageError, match="does not specify how pixels are scaled to its float32 input") as caught:
        prepared(FLOAT, metadata=metadata)
    assert "--mean and --scale" in caught.value.hint


def test_mean_without_scale_is_refused():
    with pytest.raises(UsageError, match="go together"):
        prepared(FLOAT, PreprocessOptions(mean=(0.0,) * 3))


def test_resizing_is_assumed_as_for_imagenet_and_reported():
    preprocess, assumptions = prepared(TensorSpec("x", "float32", ("n", 3, 224, 224)), SCALED)
    assert (preprocess.resize, preprocess.size, preprocess.crop) == ("shorter_side", 256, (224, 224))
    assert (preprocess.method, preprocess.layout, preprocess.color) == ("bilinear", "NCHW", "RGB")
    assert len(assumptions) == 2
    assert "shorter side of 256" in assumptions[1]


def test_what_was_said_is_not_assumed():
    preprocess, assumptions = prepared(FLOAT, PreprocessOptions(preset="torchvision", color="BGR", resize="stretch"))
    assert (preprocess.resize, preprocess.color) == ("stretch", "BGR")
    assert preprocess.mean[0] == pytest.approx(0.485 * 255)
    assert assumptions == []


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8, 2), (1, 4, 4, 1), (8, 8, 3), (), (1, 0, 8, 3), (1, 70_000, 70_000, 3), (1, 3)],
)
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(InputError, match="not one picture"):
        prepared(TensorSpec("x", "float32", shape), SCALED)


def test_a_picture_of_free_size_asks_for_one():
    with pytest.raises(UsageError, match="takes pictures of any size") as refusal:
        prepared(TensorSpec("x", "float32", (1, "h", "w", 3)), SCALED)
    assert refusal.value.hint == "name the size, such as --shape x=1x224x224x3"


def test_a_fixed_batch_takes_pictures():
    assert prepared(TensorSpec("x", "float32", (2, 6, 8, 3)), SCALED)[0].crop == (6, 8)


def test_a_manifest_that_does_not_fit_its_model_is_refused():
    preprocess = Preprocess("stretch", 9, (10**6, 10**6), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    artifact = Artifact(Path("folder"), Manifest("m", "onnx", "fp32", "m.onnx", preprocess=preprocess))
    with pytest.raises(InputError, match="do not fit"):
        preprocess_of(artifact, FLOAT, PreprocessOptions(), None, [])


# ---- what is known of the outputs


def known(classes: int, given: ModelHints = ModelHints(), **facts: object) -> ModelFacts:  # noqa: B008
    outputs = (TensorSpec("y", "float32", (1, classes)),)
    shown = found(**{"inputs": (FLOAT,), "outputs": outputs, "producers": (Producer("Softmax"),), **facts})
    return facts_of(BARE, shown, given, never)


def answer(dtype: str = "float32", scale: float | None = None, zero_point: int = 0) -> TensorSpec:
    return TensorSpec("y", dtype, (1, 4), Quantization((scale,), (zero_point,)) if scale else None)


def test_everything_that_is_known_says_where_it_was_read(tmp_path):
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    given = ModelHints(labels=tmp_path / "labels.txt", output="logit")
    facts = known(2, given, ops={"Conv": 3}, metadata={"version": "8.1", "properties": {"task": "classify"}})
    assert facts.operators == {"Conv": 3}
    assert facts.output_operator == "Softmax"
    assert facts.metadata == {"version": "8.1", "task": "classify"}
    assert facts.origins["labels"] == "--labels"
    assert facts.origins["output_kind"] == "--output"
    assert {facts.origins[name] for name in ("inputs", "outputs", "operators", "metadata")} == {"the model file"}


@pytest.mark.parametrize(("classes", "first"), [(1000, "tench, Tinca tinca"), (1001, "background")])
def test_imagenets_names_are_assumed_for_its_number_of_classes(classes, first):
    labels = known(classes).labels
    assert labels is not None
    assert (labels.origin, labels.certainty) == ("ImageNet's", "assumed")
    names = labels.names
    assert (len(names), names[0], names[-1]) == (classes, first, "toilet tissue, toilet paper, bathroom tissue")


def test_other_models_have_classes_without_names():
    assert known(17).labels is None


def test_labels_in_the_file_are_used():
    facts = known(2, labels=("cat", "dog"), metadata={"label_file": "labels.txt"})
    assert facts.labels == Labels(("cat", "dog"), "the file's metadata")
    assert facts.label_files == {"labels.txt": ("cat", "dog")}


@pytest.mark.parametrize("names", ["{0: 'cat', 1: 'dog'}", "['cat', 'dog']"])
def test_names_in_onnx_metadata_are_used(names):
    assert known(2, metadata={"properties": {"names": names}}).labels == Labels(("cat", "dog"), "the property 'names'")


@pytest.mark.parametrize("names", ["__import__('os').abort()", "{", "[" * 10_000, "{0: 'cat'}", "7"])
def test_names_that_are_none_are_skipped(names):
    assert known(2, metadata={"properties": {"names": names}}).labels is None


def test_names_are_kept_where_the_outputs_are_no_list_of_classes():
    boxes = (TensorSpec("y", "float32", (1, 84, 2100)),)
    facts = known(1, outputs=boxes, metadata={"properties": {"names": "{0: 'cat', 1: 'dog'}"}})
    assert facts.labels is not None
    assert facts.labels.names == ("cat", "dog")


def test_labels_that_were_given_count_first(tmp_path):
    (tmp_path / "labels.txt").write_text("background\r\n cat \n")
    given = ModelHints(labels=tmp_path / "labels.txt", label_offset=0)
    facts = known(2, given, labels=("a", "b"))
    assert facts.labels == Labels(("background", "cat"), str(tmp_path / "labels.txt"), "given")
    assert facts.label_offset == 0


def test_labels_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "labels.txt").write_bytes(b"\n" * 5_000_000)
    with pytest.raises(InputError, match="is too large"):
        known(2, ModelHints(labels=tmp_path / "labels.txt"))
    with pytest.raises(InputError, match="cannot be read"):
        known(2, ModelHints(labels=tmp_path))


# ---- the whole


def complete(**changes: object) -> Artifact:
    preprocess = Preprocess("stretch", 8, (8, 8), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    facts = {"inputs": (FLOAT,), "outputs": (answer(),), "preprocess": preprocess, "output": OutputMeaning("logit")}
    return Artifact(Path("folder"), Manifest("m", "onnx", "fp32", "m.onnx", **{**facts, **changes}))


def test_a_complete_manifest_needs_neither_file_nor_engine():
    model = complete_model(complete(), ModelHints(), never)
    assert model.artifact == complete()
    assert model.decoder == ClassScores(answer(), OutputMeaning("logit"))
    assert model.assumptions == ()


def test_what_is_given_overrides_the_manifest():
    given = ModelHints(preprocess_options=PreprocessOptions(mean=(1.0,) * 3), output="probability", label_offset=1)
    model = complete_model(complete(), given, never)
    assert model.artifact.manifest.preprocess is not None
    assert model.artifact.manifest.preprocess.mean == (1.0,) * 3
    assert model.decoder.meaning == OutputMeaning("probability", 1)


def test_the_engine_is_asked_where_the_manifest_has_no_shapes():
    artifact = complete(inputs=(), outputs=())
    model = complete_model(artifact, ModelHints(), lambda: ((FLOAT,), (answer(),)))
    assert model.artifact.manifest.inputs == (FLOAT,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": (FLOAT, FLOAT)}, "takes 2 inputs"),
        ({"inputs": (quantized("uint8", 0.0, 0),)}, "quantization of 'x' is invalid"),
        ({"outputs": (TensorSpec("y", "float32", ()),)}, "does not classify"),
        ({"outputs": (TensorSpec("y", "uint8", (1, 4), Quantization((0.0,), (0,))),)}, "quantization of 'y' is broken"),
    ],
)
def test_manifests_that_contradict_their_model_are_refused(changes, words):
    with pytest.raises(InputError, match=words):
        complete_model(complete(**changes), ModelHints(), never)


def test_a_map_of_scores_is_not_read_as_classes():
    model = complete_model(complete(outputs=(TensorSpec("y", "float32", (1, 8, 8, 4)),)), ModelHints(), never)
    assert model.task.id == "segmentation"


def test_the_usual_fit_of_a_picture_is_the_tasks():
    spec = TensorSpec("x", "float32", (1, 6, 8, 3))
    assumptions: list[str] = []
    assert preprocess_of(BARE, spec, SCALED, found(), assumptions, PictureDefaults("stretch")).resize == "stretch"
    assert any("stretched to 6 × 8" in line and "--resize" in line for line in assumptions)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "assumed"),
    [("mobilenet_v2_1.0_224_quant.tflite", 4), ("mobilenet_v2_1.0_224_quant_edgetpu.tflite", 5)],
)
def test_a_real_file_says_most_of_itself(name, assumed):
    model = complete_model(Artifact.open(real_data(f"mobilenet_v2/{name}")), ModelHints(), never)
    preprocess = model.artifact.manifest.preprocess
    assert preprocess is not None
    assert (preprocess.size, preprocess.crop) == (256, (224, 224))
    assert model.decoder.meaning == OutputMeaning("probability", 1)
    assert (len(model.decoder.labels), model.decoder.labels[19]) == (1001, "magpie")
    assert len(model.assumptions) == assumed
