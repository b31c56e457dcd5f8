"""From a source to a proven artifact, with a real engine and steps that convert well or badly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from converters import base
from converters.base import Requirement
from converters.onnx_to_tensorrt import OnnxToTensorrt
from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.reference import OutputHint, output_semantics
from converters.pipeline.request import ConvertRequest
from converters.pipeline.staging import ARTIFACT, staging
from converters.sources.artifact import open_source
from converters.worker import HANDLERS
from edge.table import mobilenet_v2
from runtimes.artifact import Artifact, Preprocess, sha256
from runtimes.artifact.json_fields import Fields
from runtimes.errors import InputError, ProofError, UsageError
from runtimes.registry import for_format
from runtimes.session import RunOptions
from runtimes.verification.selfcheck import check

WAY = Preprocess("stretch", 4, (4, 4), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)


def silent(progress) -> None:
    pass


@pytest.fixture
def request_for(tmp_path):
    """A request for a source: `onnx_to_onnx` in fp32 into a fresh folder, and what is changed of it."""

    def make(source, precision="fp32", **changes) -> ConvertRequest:
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        request = ConvertRequest(
            source=source,
            steps=("onnx_to_onnx",),
            format="onnx",
            options=ConvertOptions(precision=precision),
            out=out,
            scratch=tmp_path / "scratch",
        )
        return replace(request, **changes)

    return make


@pytest.fixture
def pictures(tmp_path):
    path = tmp_path / "samples.npz"
    np.savez(path, pixels=np.random.default_rng(0).integers(0, 256, (40, 4, 4, 3), np.uint8))
    return path


def test_a_good_conversion_becomes_an_artifact(classifier, step, request_for):
    result = convert(request_for(classifier), silent)
    assert result.files == ("copied.onnx", "manifest.json", "selfcheck.npz")
    assert (result.format, result.precision) == ("onnx", "fp32")
    assert result.proof["passed"]
    assert (result.proof["inputs"], result.proof["samples"]) == ("synthetic", 8)


def test_the_artifact_verifies_itself(classifier, step, request_for):
    request = request_for(classifier)
    convert(request, silent)
    artifact = Artifact.open(request.out)
    artifact.verify_digests()
    with for_format("onnx").open(artifact, RunOptions()) as session:
        assert check(artifact, session).passed


def test_the_manifest_tells_what_was_done(classifier, step, request_for):
    request = request_for(classifier, options=ConvertOptions(precision="fp32", opset=13), preprocess=WAY)
    convert(request, silent)
    manifest = Artifact.open(request.out).manifest
    assert (manifest.name, manifest.model) == ("classifier", "copied.onnx")
    assert manifest.source == {"format": "onnx", "name": "classifier.onnx", "sha256": sha256(classifier)}
    assert manifest.conversion["steps"] == ["onnx_to_onnx"]
    assert manifest.conversion["options"] == {"precision": "fp32", "opset": 13, "batch": 1}
    assert manifest.conversion["libraries"] == {"numpy": np.__version__}
    assert manifest.preprocess == WAY
    assert manifest.output is not None
    assert manifest.output.kind == "probability"
    assert str(request.out.parent) not in (request.out / "manifest.json").read_text()


def test_packages_are_listed_only_for_a_library_whose_package_has_another_name(monkeypatch):
    listings = []

    def distributions():
        listings.append(1)
        return {"named_otherwise": ["numpy"]}

    monkeypatch.setattr(base, "_distributions", distributions)
    assert (Requirement("numpy").version, listings) == (np.__version__, [])
    assert Requirement("named_otherwise").version == np.__version__
    assert Requirement("in_no_package").version == ""


def test_the_same_input_gives_the_same_bytes(classifier, step, request_for, tmp_path):
    digests = []
    for name in ("first", "second"):
        out = tmp_path / name
        out.mkdir()
        convert(request_for(classifier, out=out), silent)
        digests.append({path.name: sha256(path) for path in out.iterdir()})
    assert digests[0] == digests[1]


@pytest.mark.parametrize(
    "change",
    [
        lambda weights: weights.reshape(16, 3, 5)[:, ::-1].reshape(48, 5),  # color channels swapped
        lambda weights: weights * 0.5,  # a wrong scale
        lambda weights: np.roll(weights, 1, axis=1),  # classes off by one
        lambda weights: weights * 0,
        lambda weights: weights * np.nan,
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_wrong_conversion_fails_and_is_kept(classifier, step, request_for, make_classifier, change, precision):
    step.result = make_classifier(change=change)
    request = request_for(classifier, precision, kept="out.failed")
    with pytest.raises(ProofError) as caught:
        convert(request, silent)
    assert "output 'scores'" in caught.value.message
    assert "out.failed" in caught.value.hint
    proof = Artifact.open(request.out).manifest.proof
    assert proof["passed"] is False


def test_fp16_weights_pass_as_fp16_and_not_as_fp32(classifier, step, request_for, make_classifier):
    step.result = make_classifier(change=lambda weights: weights.astype(np.float16).astype(np.float32))
    assert convert(request_for(classifier, "fp16"), silent).proof["passed"]
    with pytest.raises(ProofError, match="max_abs"):
        convert(request_for(classifier, "fp32"), silent)


def test_a_source_that_ignores_its_input_is_an_error_before_any_conversion(step, request_for, make_classifier):
    source = make_classifier("dead.onnx", change=lambda weights: weights * 0)
    with pytest.raises(ProofError, match="nothing can be proven"):
        convert(request_for(source), silent)
    assert step.calls == []


def test_int8_calibrates_on_some_pictures_and_is_proven_on_others(classifier, step, request_for, pictures):
    result = convert(request_for(classifier, "int8", samples=pictures, preprocess=WAY), silent)
    ((_, calibration),) = step.calls
    assert len(calibration) == 32
    assert calibration.samples["image"].shape == (32, 1, 4, 4, 3)
    assert (result.proof["inputs"], result.proof["samples"]) == ("pictures", 8)


def test_pictures_prove_a_float_conversion_and_calibrate_nothing(classifier, step, request_for, pictures):
    result = convert(request_for(classifier, samples=pictures, preprocess=WAY), silent)
    assert step.calls[0][1] is None
    assert (result.proof["inputs"], result.proof["samples"]) == ("pictures", 32)


def test_what_is_said_of_the_data_arrives(classifier, step, request_for, tmp_path):
    np.savez(tmp_path / "few.npz", image=np.random.default_rng(0).random((12, 4, 4, 3)))
    result = convert(request_for(classifier, "int8", samples=tmp_path / "few.npz"), silent)
    assert result.proof["inputs"] == "arrays"
    assert "12 calibration samples are few" in result.notes[0]


def test_what_was_assumed_of_a_bare_source_is_reported_and_of_an_artifact_nothing(
    classifier, step, request_for, tmp_path
):
    first = request_for(classifier, preprocess=WAY)
    assert list(convert(first, silent).notes) == [
        "pictures are passed as 4 × 4, bilinear, RGB, NHWC",
        "the output is assumed to be a probability, because each answer sums to one",
    ]
    second = request_for(first.out, out=tmp_path / "second")
    second.out.mkdir()
    assert convert(second, silent).notes == ()
    third = request_for(classifier, out=tmp_path / "third", kind="probability")
    third.out.mkdir()
    assert "the preprocessing is unknown" in convert(third, silent).notes[0]


def test_several_steps_run_in_fp32_up_to_the_last(classifier, step, request_for, pictures):
    class Again(type(step)):
        id = "again"

    steps = ("onnx_to_onnx", "again")
    with pytest.MonkeyPatch.context() as patch:
        second = Again()
        patch.setattr("converters.registry.all_converters", lambda: (step, second))
        convert(request_for(classifier, "int8", steps=steps, samples=pictures, preprocess=WAY), silent)
    assert [(options.precision, calibration is None) for options, calibration in step.calls] == [("fp32", True)]
    assert [(options.precision, calibration is None) for options, calibration in second.calls] == [("int8", False)]


def test_labels_travel_with_the_artifact(classifier, step, request_for, tmp_path):
    (tmp_path / "names.txt").write_text("background\ncat\ndog\npig\ncow\n")
    request = request_for(classifier, labels=tmp_path / "names.txt")
    convert(request, silent)
    artifact = Artifact.open(request.out)
    assert artifact.labels() == ["background", "cat", "dog", "pig", "cow"]
    assert artifact.manifest.output is not None
    assert artifact.manifest.output.label_offset == 1


@pytest.mark.parametrize(("classes", "offset"), [(1000, 0), (1001, 1), (5, 0)])
def test_imagenets_1001_classes_begin_with_the_background(tmp_path, classes, offset):
    (tmp_path / "m.null").write_bytes(b"x")
    answers = np.full((2, classes), 1 / classes, np.float32)
    for labels, expected in ((None, offset), (["cat"] * classes, 0)):
        meaning = output_semantics(OutputHint(kind="probability"), Artifact.open(tmp_path / "m.null"), answers, labels)
        assert meaning is not None
        assert meaning.label_offset == expected


def test_labels_that_do_not_fit_are_reported_before_any_conversion(classifier, step, request_for, tmp_path):
    (tmp_path / "names.txt").write_text("cat\n")
    with pytest.raises(InputError, match="1 labels, the output 5 classes"):
        convert(request_for(classifier, labels=tmp_path / "names.txt"), silent)
    assert step.calls == []


def test_what_an_artifact_knows_is_handed_on(classifier, step, request_for, tmp_path):
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    first = request_for(classifier, preprocess=WAY, kind="logit", labels=tmp_path / "names.txt")
    convert(first, silent)
    second = request_for(first.out, out=tmp_path / "second")
    second.out.mkdir()
    convert(second, silent)
    old, new = Artifact.open(first.out), Artifact.open(second.out)
    assert new.manifest.preprocess == WAY
    assert new.manifest.output == old.manifest.output
    assert new.labels() == old.labels()


def test_without_steps_the_source_is_packed_with_what_it_names(classifier, step, request_for):
    onnx = pytest.importorskip("onnx")
    model = onnx.load(classifier)
    onnx.save(model, classifier, save_as_external_data=True, location="weights.data", size_threshold=0)
    result = convert(request_for(classifier, steps=()), silent)
    assert result.files == ("classifier.onnx", "manifest.json", "selfcheck.npz", "weights.data")
    assert result.proof["metrics"]["max_abs"] == 0


def test_free_sizes_are_refused(step, request_for, make_classifier):
    with pytest.raises(InputError, match="free shape"):
        convert(request_for(make_classifier("free.onnx", free=True)), silent)


def test_an_unknown_step(classifier, request_for):
    with pytest.raises(UsageError, match="no converter 'onnx_to_gold'"):
        convert(request_for(classifier, steps=("onnx_to_gold",)), silent)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not arrays"])
def test_samples_that_cannot_be_read(classifier, step, request_for, tmp_path, content):
    (tmp_path / "broken.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"broken\.npz"):
        convert(request_for(classifier, samples=tmp_path / "broken.npz"), silent)


def test_progress_goes_from_nothing_to_everything(classifier, step, request_for):
    seen = []
    convert(request_for(classifier), seen.append)
    assert [one["done"] for one in seen] == [0, 1, 2, 3]
    assert {one["total"] for one in seen} == {3}
    assert seen[1]["doing"] == "onnx_to_onnx"


def test_a_failed_proof_is_kept_beside_the_place_of_the_result(
    classifier, step, request_for, make_classifier, tmp_path
):
    step.result = make_classifier(change=lambda weights: -weights)
    place = tmp_path / "results" / "model"

    def attempt():
        with staging(place) as work:
            convert(request_for(classifier, out=work / ARTIFACT), silent)

    with pytest.raises(ProofError):
        attempt()
    assert [path.name for path in place.parent.iterdir()] == ["model.failed"]
    assert Artifact.open(place.with_name("model.failed")).manifest.proof["passed"] is False


def test_a_job_is_a_request(tmp_path):
    job = {
        "job": "convert",
        "source": "a.keras",
        "steps": ["keras_to_onnx"],
        "format": "onnx",
        "options": {"precision": "fp32", "opset": 13, "io_dtype": None, "batch": 1},
        "out": "out",
        "scratch": "scratch",
        "samples": None,
        "preprocess": json.loads(json.dumps(vars(WAY))),
        "kind": None,
    }
    request = ConvertRequest.from_json(Fields(job, "the job"))
    assert request.options == ConvertOptions(precision="fp32", opset=13)
    assert request.preprocess == WAY
    assert request.samples is request.kind is request.labels is None
    assert ConvertRequest.from_json(Fields(json.loads(json.dumps(request.to_json())), "the job")) == request


def test_a_job_carries_the_options_of_its_last_converter(tmp_path):
    options = OnnxToTensorrt.Options(precision="int8", release="8.6.1", implicit=True, keep=("conv1",))
    steps = ("keras_to_onnx", "onnx_to_tensorrt")
    request = ConvertRequest(
        source=tmp_path, steps=steps, format="tensorrt", options=options, out=tmp_path, scratch=tmp_path
    )
    assert ConvertRequest.from_json(Fields(json.loads(json.dumps(request.to_json())), "the job")).options == options


def test_the_worker_serves_conversions_and_what_every_worker_does():
    assert {"describe", "run", "verify", "measure", "convert"} <= set(HANDLERS)


@pytest.fixture(scope="module")
def mobilenet(data, tmp_path_factory):
    """Keras' MobileNetV2 with the shared weights, and its calibration pictures as pixels."""
    for name in ("tensorflow", "keras", "ai_edge_litert", "PIL", "safetensors"):
        pytest.importorskip(name)
    from edge.inference.images import find_pictures, load_all

    folder = tmp_path_factory.mktemp("mobilenet")
    weights = mobilenet_v2.find_weights(None, data)
    way = mobilenet_v2.preprocess("keras")
    np.savez(folder / "samples.npz", pixels=load_all(find_pictures(data / "imagenet" / "calibration"), way))
    return mobilenet_v2.build(folder, weights, "keras"), folder / "samples.npz", way


@pytest.mark.data
def test_mobilenet_becomes_the_same_int8_file_twice(mobilenet, tmp_path):
    model, samples, way = mobilenet

    def made(name: str) -> dict[str, str]:
        out = tmp_path / name
        out.mkdir()
        convert(
            ConvertRequest(
                source=model,
                steps=("keras_to_tflite",),
                format="tflite",
                options=ConvertOptions(precision="int8"),
                out=out,
                scratch=tmp_path,
                samples=samples,
                preprocess=way,
            ),
            silent,
        )
        return {path.name: sha256(path) for path in out.iterdir()}

    assert made("first") == made("second")
    proof = Artifact.open(tmp_path / "first").manifest.proof
    assert proof["metrics"]["top1_agreement"] >= 0.95
    assert proof["metrics"]["snr_db"] > 24


@pytest.mark.data
@pytest.mark.parametrize("source", ["tf2_mobilenet_v2_1.0_224_ptq.tflite", "mobilenet_v2_1.0_224_quant.tflite"])
def test_published_files_are_packed(data, tmp_path, source):
    pytest.importorskip("ai_edge_litert")
    model = data / "mobilenet_v2" / source
    labels = data / "mobilenet_v2" / "imagenet_labels_1001.txt"
    assert open_source(model).format == "tflite"
    request = ConvertRequest(
        source=model,
        steps=(),
        format="tflite",
        options=ConvertOptions(precision="int8"),
        out=tmp_path / "out",
        scratch=tmp_path,
        labels=labels,
    )
    request = replace(request, kind="probability")
    request.out.mkdir()
    result = convert(request, silent)
    assert result.proof["metrics"]["max_abs"] == 0
