"""What is taken from a bare model file, what is assumed and said, and what is asked for."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edge.bare import Classifier, classifier_of
from edge.bare_given import Given
from edge.bare_output import output_meaning
from edge.bare_pixels import preprocess_of
from edge.inspection import Inspection
from edge.preprocessing import Said
from runtimes.artifact import Artifact, Manifest, OutputMeaning, Preprocess, Quantization, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.tensors import pixels_to_input

ROOT = Path(__file__).parents[2]
FLOAT = TensorSpec("x", "float32", (1, 8, 8, 3))
PIXELS = np.stack([np.arange(256, dtype=np.uint8).reshape(16, 16)] * 3, axis=-1)
BARE = Artifact(Path("folder"), Manifest("model", "tflite", "unknown", "model.tflite"))
SCALED = Said(mean=(127.5,) * 3, scale=(1 / 127.5,) * 3)


def never() -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    raise AssertionError("the file tells all")


def found(**facts: object) -> Inspection:
    return Inspection(**{"format": "tflite", "inputs": (), "outputs": (), "ops": {}, "precision": "fp32", **facts})


def quantised(dtype: str, scale: float, zero_point: int, shape=(1, 16, 16, 3)) -> TensorSpec:
    return TensorSpec("x", dtype, shape, Quantization((scale,), (zero_point,)))


def prepared(spec: TensorSpec, said: Said = Said(), **facts: object) -> tuple[Preprocess, list[str]]:  # noqa: B008
    assumptions: list[str] = []
    return preprocess_of(BARE, spec, said, found(**facts), assumptions), assumptions


# ---- pictures


@pytest.mark.parametrize(("dtype", "scale", "zero_point"), [("uint8", 0.0078125, 128), ("uint8", 1 / 255, 0)])
def test_a_quantised_input_gets_the_pixels_as_they_are(dtype, scale, zero_point):
    spec = quantised(dtype, scale, zero_point)
    preprocess, assumptions = prepared(spec)
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS).all()
    assert any("pixels go in as they are" in line and "--preprocess" in line for line in assumptions)


def test_a_signed_input_gets_the_pixels_less_128():
    spec = quantised("int8", 0.02, -10)
    assert (pixels_to_input(PIXELS, spec, prepared(spec)[0])[0] == PIXELS.astype(int) - 128).all()


def test_bytes_without_quantisation_are_pixels():
    spec = TensorSpec("x", "uint8", (1, 3, 16, 16))
    preprocess, _ = prepared(spec)
    assert preprocess.layout == "NCHW"
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS.transpose(2, 0, 1)).all()


def test_metadata_that_agrees_with_the_quantisation_feeds_exact_pixels():
    # (p − 127.5) ÷ 127.5 at scale 1/127.5 and zero point 127 is p − 0.5: rounding it would lose every second pixel.
    spec = quantised("uint8", 1 / 127.5, 127)
    preprocess, assumptions = prepared(spec, metadata={"mean": [127.5], "std": [127.5]})
    assert (pixels_to_input(PIXELS, spec, preprocess)[0] == PIXELS).all()
    assert any("cancel out" in line for line in assumptions)


def test_metadata_that_says_otherwise_is_followed():
    spec = quantised("uint8", 1 / 64, 128)
    preprocess, assumptions = prepared(spec, metadata={"mean": [127.5], "std": [127.5]})
    assert (preprocess.mean, preprocess.scale) == ((127.5,) * 3, (1 / 127.5,) * 3)
    assert not any("pixels go in" in line for line in assumptions)


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
    assert not any("colours" in line for line in assumptions)


@pytest.mark.parametrize("metadata", [{}, {"mean": [127.5], "std": [0.0]}, {"mean": [1.0, 2.0], "std": [1.0, 1.0]}])
def test_how_floats_are_scaled_is_asked_for(metadata):
    with pytest.raises(UsageError, match="does not say how pixels become its float32 input") as caught:
        prepared(FLOAT, metadata=metadata)
    assert "--mean and --scale" in caught.value.hint


def test_mean_without_scale_is_refused():
    with pytest.raises(UsageError, match="go together"):
        prepared(FLOAT, Said(mean=(0.0,) * 3))


def test_resizing_is_assumed_as_for_imagenet_and_said():
    preprocess, assumptions = prepared(TensorSpec("x", "float32", ("n", 3, 224, 224)), SCALED)
    assert (preprocess.resize, preprocess.size, preprocess.crop) == ("shorter_side", 256, (224, 224))
    assert (preprocess.method, preprocess.layout, preprocess.color) == ("bilinear", "NCHW", "RGB")
    assert len(assumptions) == 2
    assert "shorter side of 256" in assumptions[1]


def test_what_was_said_is_not_assumed():
    preprocess, assumptions = prepared(FLOAT, Said(way="torchvision", color="BGR", resize="stretch"))
    assert (preprocess.resize, preprocess.color) == ("stretch", "BGR")
    assert preprocess.mean[0] == pytest.approx(0.485 * 255)
    assert assumptions == []


@pytest.mark.parametrize(
    "shape",
    [(1, 8, 8, 1), (2, 8, 8, 3), (8, 8, 3), (), (1, "h", "w", 3), (1, 0, 8, 3), (1, 70_000, 70_000, 3), (1, 3)],
)
def test_what_is_no_picture_is_refused(shape):
    with pytest.raises(InputError, match="not one picture"):
        prepared(TensorSpec("x", "float32", shape), SCALED)


def test_a_manifest_that_does_not_fit_its_model_is_refused():
    preprocess = Preprocess("stretch", 9, (10**6, 10**6), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    artifact = Artifact(Path("folder"), Manifest("m", "onnx", "fp32", "m.onnx", preprocess=preprocess))
    with pytest.raises(InputError, match="do not fit"):
        preprocess_of(artifact, FLOAT, Said(), None, [])


# ---- outputs


def meaning(spec: TensorSpec, classes: int, given: Given = Given(), **facts: object):  # noqa: B008
    assumptions: list[str] = []
    return *output_meaning(BARE, spec, given, found(**facts), classes, assumptions), assumptions


def answer(dtype: str = "float32", scale: float | None = None, zero_point: int = 0) -> TensorSpec:
    return TensorSpec("y", dtype, (1, 4), Quantization((scale,), (zero_point,)) if scale else None)


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("SOFTMAX", "probability"),
        ("Softmax", "probability"),
        ("aten.softmax", "probability"),
        ("SoftMax", "probability"),
        ("LOGISTIC", "probability"),
        ("sigmoid", "probability"),
        ("LOG_SOFTMAX", "logit"),
        ("LogSoftmax", "logit"),
        ("aten.log_softmax", "logit"),
        ("Gemm", "logit"),
        ("Dense", "logit"),
    ],
)
def test_the_kind_of_the_output_is_read_from_its_operator(operator, kind):
    output, _, assumptions = meaning(answer(), 4, output_op=operator)
    assert output.kind == kind
    assert any(operator in line and "--output" in line for line in assumptions)


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_a_compiled_output_with_a_softmaxs_scale_is_probabilities(dtype, zero_point):
    output, _, assumptions = meaning(answer(dtype, 1 / 256, zero_point), 4, output_op="edgetpu-custom-op")
    assert output.kind == "probability"
    assert "1/256" in assumptions[0]


def test_a_compiled_output_with_another_scale_is_logits():
    assert meaning(answer("uint8", 0.1, 58), 4, output_op="edgetpu-custom-op")[0].kind == "logit"


def test_an_output_of_unknown_origin_is_asked_for():
    with pytest.raises(UsageError, match="what makes its output"):
        meaning(answer(), 4)
    assert meaning(answer(), 4, Given(output="logit"))[0].kind == "logit"


@pytest.mark.parametrize(("classes", "offset", "first"), [(1000, 0, "tench, Tinca tinca"), (1001, 1, "background")])
def test_imagenets_names_are_assumed_for_its_number_of_classes(classes, offset, first):
    output, labels, assumptions = meaning(answer(), classes, output_op="Softmax")
    assert output.label_offset == offset
    assert labels is not None
    assert (len(labels), labels[0], labels[-1]) == (classes, first, "toilet tissue, toilet paper, bathroom tissue")
    assert any("ImageNet" in line and "--labels" in line for line in assumptions)


def test_other_models_have_classes_without_names():
    output, labels, assumptions = meaning(answer(), 17, output_op="Softmax")
    assert labels is None
    assert output.label_offset == 0
    assert any("17 classes have no names" in line for line in assumptions)


def test_labels_in_the_file_are_used():
    _, labels, assumptions = meaning(answer(), 2, output_op="Softmax", labels=("cat", "dog"))
    assert labels == ("cat", "dog")
    assert not any("--labels" in line for line in assumptions)


@pytest.mark.parametrize("names", ["{0: 'cat', 1: 'dog'}", "['cat', 'dog']"])
def test_names_in_onnx_metadata_are_used(names):
    assert meaning(answer(), 2, output_op="Softmax", metadata={"properties": {"names": names}})[1] == ("cat", "dog")


@pytest.mark.parametrize("names", ["__import__('os').abort()", "{", "[" * 10_000, "{0: 'cat'}", "7"])
def test_names_that_are_none_are_passed_over(names):
    assert meaning(answer(), 2, output_op="Softmax", metadata={"properties": {"names": names}})[1] is None


def test_labels_that_were_given_count_first(tmp_path):
    (tmp_path / "labels.txt").write_text("background\r\n cat \n")
    given = Given(labels=tmp_path / "labels.txt", label_offset=0)
    output, labels, _ = meaning(answer(), 2, given, output_op="Softmax", labels=("a", "b"))
    assert labels == ("background", "cat")
    assert output.label_offset == 0


def test_1000_labels_fit_1001_classes(tmp_path):
    (tmp_path / "labels.txt").write_text("\n".join(f"name {i}" for i in range(1000)))
    output, labels, _ = meaning(answer(), 1001, Given(labels=tmp_path / "labels.txt"), output_op="Softmax")
    assert labels is not None
    assert (labels[:2], output.label_offset) == (("background", "name 0"), 1)


@pytest.mark.parametrize(("content", "words"), [(b"one\n", "holds 1 labels"), (b"\n" * 5_000_000, "is larger than")])
def test_labels_that_do_not_fit_are_refused(tmp_path, content, words):
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(InputError, match=words):
        meaning(answer(), 2, Given(labels=tmp_path / "labels.txt"), output_op="Softmax")
    with pytest.raises(InputError, match="cannot be read"):
        meaning(answer(), 2, Given(labels=tmp_path), output_op="Softmax")


# ---- the whole


def complete(**changes: object) -> Artifact:
    preprocess = Preprocess("stretch", 8, (8, 8), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    facts = {"inputs": (FLOAT,), "outputs": (answer(),), "preprocess": preprocess, "output": OutputMeaning("logit")}
    return Artifact(Path("folder"), Manifest("m", "onnx", "fp32", "m.onnx", **{**facts, **changes}))


def test_a_complete_manifest_needs_neither_file_nor_engine():
    classifier = classifier_of(complete(), Given(), never)
    assert classifier == Classifier(complete(), None, ())


def test_what_is_given_overrides_the_manifest():
    given = Given(Said(mean=(1.0,) * 3), output="probability", label_offset=1)
    manifest = classifier_of(complete(), given, never).artifact.manifest
    assert manifest.preprocess is not None
    assert manifest.output == OutputMeaning("probability", 1)
    assert manifest.preprocess.mean == (1.0,) * 3


def test_the_engine_is_asked_where_the_manifest_has_no_shapes():
    artifact = complete(inputs=(), outputs=())
    classifier = classifier_of(artifact, Given(), lambda: ((FLOAT,), (answer(),)))
    assert classifier.artifact.manifest.inputs == (FLOAT,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"inputs": (FLOAT, FLOAT)}, "takes 2 inputs"),
        ({"outputs": (TensorSpec("y", "float32", (1, 8, 8, 4)),)}, "does not classify"),
        ({"outputs": (TensorSpec("y", "float32", ()),)}, "does not classify"),
        ({"outputs": (TensorSpec("y", "float32", (2, 4)),)}, "does not classify"),
        ({"outputs": (answer("uint8", 1e-45, 0), answer())}, None),
        ({"outputs": (TensorSpec("y", "uint8", (1, 4), Quantization((0.0,), (0,))),)}, "quantisation of 'y' is broken"),
        ({"outputs": (TensorSpec("y", "int8", (1, 4), Quantization((1.0,) * 2, (0,) * 2, 9)),)}, "'y' is broken"),
    ],
)
def test_models_that_classify_no_pictures_are_refused(changes, words):
    if words is None:
        assert classifier_of(complete(**changes), Given(), never).labels is None
        return
    with pytest.raises(InputError, match=words):
        classifier_of(complete(**changes), Given(), never)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "assumed"),
    [("mobilenet_v2_1.0_224_quant.tflite", 4), ("mobilenet_v2_1.0_224_quant_edgetpu.tflite", 5)],
)
def test_a_real_file_says_most_of_itself(name, assumed):
    data = Path(os.environ.get("EDGE_DATA", ROOT.parent / "shared" / "data"))
    if not data.is_dir() and "EDGE_DATA" not in os.environ:
        pytest.skip("no real data: set EDGE_DATA")
    classifier = classifier_of(Artifact.open(data / "mobilenet_v2" / name), Given(), never)
    manifest = classifier.artifact.manifest
    assert manifest.preprocess is not None
    assert (manifest.preprocess.size, manifest.preprocess.crop) == (256, (224, 224))
    assert manifest.output == OutputMeaning("probability", 1)
    assert classifier.labels is not None
    assert (len(classifier.labels), classifier.labels[19]) == (1001, "magpie")
    assert len(classifier.assumptions) == assumed
