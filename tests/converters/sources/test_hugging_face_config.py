"""Labels and preprocessing from a Hugging Face folder, compared with the library's own image processors."""

from __future__ import annotations

import json

import numpy as np
import pytest

from converters.pytorch.hugging_face_config import CONFIG, PROCESSOR, SourceHints, picture_size, read_folder
from edge.inference.images import load_pixels
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.tensors import pixels_to_input

NAMES = ("tabby cat", "magpie", "hot dog")
CLASSIFIER = {
    "architectures": ["ViTForImageClassification"],
    "id2label": {str(index): name for index, name in enumerate(NAMES)},
}
VIT = {
    "image_processor_type": "ViTImageProcessor",
    "size": {"height": 32, "width": 32},
    "resample": 2,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.5, 0.25, 0.2],
    "rescale_factor": 1 / 255,
}


@pytest.fixture
def folder(tmp_path):
    def write(processor=None, **config):
        (tmp_path / CONFIG).write_text(json.dumps({**CLASSIFIER, **config}))
        if processor is not None:
            (tmp_path / PROCESSOR).write_text(json.dumps(processor))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ViT", {"size": {"height": 32, "width": 24}}),
        ("Siglip", {"size": {"height": 32, "width": 32}, "resample": 3}),
        ("Beit", {"size": {"height": 32, "width": 32}}),
        ("CLIP", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("Bit", {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}),
        ("MobileNetV1", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("MobileNetV2", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}, "resample": 0}),
        ("MobileViT", {"size": {"shortest_edge": 40}, "crop_size": {"height": 32, "width": 32}}),
        ("DeiT", {"size": {"height": 32, "width": 32}, "crop_size": {"height": 32, "width": 32}}),
        ("ConvNext", {"size": {"shortest_edge": 28}, "crop_pct": 0.875}),
        ("ConvNext", {"size": {"shortest_edge": 384}, "crop_pct": 0.875}),
        ("ViT", {"size": {"height": 32, "width": 32}, "do_normalize": False}),
        ("ViT", {"size": {"height": 32, "width": 32}, "do_rescale": False, "image_mean": [127.5] * 3}),
    ],
)
def test_a_picture_goes_in_as_the_librarys_processor_makes_it(folder, name, options):
    transformers = pytest.importorskip("transformers")
    image = pytest.importorskip("PIL.Image")
    processor = getattr(transformers, f"{name}ImageProcessorPil", None)
    if processor is None:
        pytest.skip(f"this transformers has no {name} without torchvision")
    made = processor(**options)
    made.save_pretrained(folder())
    found = read_folder(folder())
    assert found.preprocess is not None, found.notes
    # 60 × 100 → 40 × 66: both sides minus the crop are even, and the two ways to halve an odd rest do not matter.
    pixels = np.random.default_rng(0).integers(0, 256, (60, 100, 3), np.uint8)
    picture = image.fromarray(pixels).resize((100, 60))
    path = folder() / "picture.png"
    picture.save(path)
    wanted = made(picture, return_tensors="np")["pixel_values"]
    spec = TensorSpec("pixel_values", "float32", wanted.shape)
    given = pixels_to_input(load_pixels(path, found.preprocess), spec, found.preprocess)
    np.testing.assert_allclose(given, wanted, atol=1.01 * max(found.preprocess.scale))  # a step of one pixel value
    assert np.abs(given - wanted).mean() < 0.01 * max(found.preprocess.scale) * 255


def test_labels_and_the_kind_of_the_output(folder):
    assert read_folder(folder()) == SourceHints(labels=NAMES, kind="logit", notes=("3 labels come from config.json",))
    assert read_folder(folder(architectures=["BertModel"])) == SourceHints()
    assert read_folder(folder(id2label={"0": "LABEL_0", "1": "LABEL_1"})).labels is None
    assert read_folder(folder(id2label=None)).labels is None


@pytest.mark.parametrize("labels", [{"0": "a", "2": "b"}, {"0": "a", "1": 3}, {"0": "two\nlines"}, {"a": "b"}])
def test_labels_that_are_not_one_for_each_class_are_refused(folder, labels):
    with pytest.raises(InputError, match="id2label"):
        read_folder(folder(id2label=labels))


def test_older_files_give_one_number_as_a_size(folder):
    old = {**VIT, "image_processor_type": None, "feature_extractor_type": "ViTFeatureExtractor", "size": 32}
    assert read_folder(folder(old)).preprocess == read_folder(folder(VIT)).preprocess
    assert picture_size(folder(old)) == (32, 32)
    clip = {**VIT, "image_processor_type": "CLIPImageProcessorFast", "size": 40, "crop_size": 32}
    found = read_folder(folder(clip)).preprocess
    assert found is not None
    assert (found.resize, found.size, found.crop) == ("shorter_side", 40, (32, 32))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"image_processor_type": "EfficientNetImageProcessor"}, "an image processor that edge does not know"),
        ({"image_processor_type": None}, "(of no type) is an image processor"),
        ({"resample": 1}, "a filter other than"),
        ({"resample": None}, "a filter other than"),
        ({"do_resize": False}, "does not resize"),
        ({"do_center_crop": True, "crop_size": {"height": 24, "width": 24}}, "cannot describe"),
        ({"size": {"shortest_edge": 40}}, "cannot describe"),
        ({"size": {"height": 0, "width": 32}}, "not produce pictures of three channels"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "not produce pictures of three channels"),
    ],
)
def test_what_is_not_known_is_said_and_not_guessed(folder, changes, words):
    found = read_folder(folder({**VIT, **changes}))
    assert found.preprocess is None
    assert words in found.notes[-1]
    assert "--preprocess" in found.notes[-1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": None}, "missing value in 'size'"),
        ({"size": "large"}, "'size' is 'large'"),
        ({"size": {"height": "32", "width": 32}}, r"'size\.height' is '32'"),
        ({"image_std": [0, 1, 1]}, "must be positive"),
        ({"do_normalize": "yes"}, "not true or false"),
        ({"rescale_factor": [1]}, "rescale_factor"),
    ],
)
def test_a_broken_processor_is_named(folder, changes, words):
    with pytest.raises(InputError, match=words) as caught:
        read_folder(folder({**VIT, **changes}))
    assert "--preprocess" in caught.value.hint


def test_files_that_are_no_json_are_named(folder):
    place = folder()
    (place / PROCESSOR).write_text("[1]")
    with pytest.raises(InputError, match="holds no JSON object"):
        read_folder(place)
    (place / PROCESSOR).write_text("[" * 100_000)
    with pytest.raises(InputError, match="cannot be read"):
        read_folder(place)


def test_edge_run_gives_the_folders_names(folder, tmp_path, capsys):
    from edge.cli import main
    from runtimes.artifact import Artifact

    transformers = pytest.importorskip("transformers")
    image = pytest.importorskip("PIL.Image")
    for library in ("torch", "onnx", "onnxscript", "onnxruntime", "safetensors"):
        pytest.importorskip(library)
    small = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    labels = {"id2label": dict(enumerate(NAMES)), "label2id": {name: index for index, name in enumerate(NAMES)}}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **labels, **small)
    place, out, picture = tmp_path / "vit", tmp_path / "out", tmp_path / "picture.png"
    transformers.ViTForImageClassification(config).save_pretrained(place)
    (place / PROCESSOR).write_text(json.dumps(VIT))
    image.new("RGB", (40, 40), "red").save(picture)
    assert main(["convert", str(place), "--to", "onnx", "--out", str(out)]) == 0
    said = capsys.readouterr().err
    assert "3 labels come from config.json" in said
    assert "comes from preprocessor_config.json (ViTImageProcessor)" in said
    manifest = Artifact.open(out).manifest
    assert manifest.preprocess == read_folder(place).preprocess
    assert manifest.output is not None
    assert manifest.output.kind == "logit"
    assert main(["run", str(out), str(picture), "--json"]) == 0
    assert {one["label"] for one in json.loads(capsys.readouterr().out)[0]["top"]} == set(NAMES)

    (place / PROCESSOR).write_text(json.dumps({**VIT, "size": {"height": 64, "width": 64}}))
    assert main(["convert", str(place), "--to", "onnx", "--out", str(out), "--force"]) == 0
    assert "produces pictures of another size than the model takes" in capsys.readouterr().err
    assert Artifact.open(out).manifest.preprocess is None
    assert Artifact.open(out).manifest.output == manifest.output
