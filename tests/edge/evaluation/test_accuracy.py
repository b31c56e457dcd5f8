"""Top-1 of source and result: on a classifier of pictures made up, and on a network trained on real digits.

The digits' network has truly float weights; on its 599 held-out pictures, as measured (right answers):

    float Keras    TFLite int8    ONNX int8    OpenVINO int8
        576            577           577            577
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from converters.library_calls import no_telemetry
from converters.options import ConvertOptions
from converters.pipeline.convert import convert as run_conversion
from converters.pipeline.reference import Reference
from converters.pipeline.request import ConvertRequest
from edge.conversion.datasets import write_evaluation
from edge.evaluation.accuracy import Accuracy, make_accuracy_gate
from edge.evaluation.labeled_pictures import find_labeled
from edge.inference.images import find_pictures, load_all
from runtimes.artifact import Artifact, OutputMeaning, Preprocess
from runtimes.errors import InputError, ProofError
from runtimes.registry import open_session

WAY = Preprocess("stretch", 4, (4, 4), "bilinear", "NHWC", "RGB", (127.5,) * 3, (1 / 127.5,) * 3)
PIXELS = np.random.default_rng(3).integers(0, 256, (40, 4, 4, 3), np.uint8)
# Right answers that int8 may cost: 1 % of 599. Over ten seeds of the training it cost between −4 and 5 of them.
MAX_LOST = 6
ROUTES = {
    "tflite": ("keras_to_tflite",),
    "onnx": ("keras_to_onnx", "onnx_to_onnx"),
    "openvino": ("keras_to_onnx", "onnx_to_openvino"),
}


def convert(request, report):
    """As the worker of edge does it, which scores."""
    return run_conversion(
        request, report, lambda _, _source, *facts: make_accuracy_gate(request.evaluation, request.max_drop, *facts)
    )


def silent(progress) -> None:
    pass


@pytest.fixture
def answered(classifier):
    """The classes that the classifier itself gives the pictures."""
    with open_session(Artifact.open(classifier)) as session:
        inputs = ((PIXELS - 127.5) / 127.5).astype(np.float32)[:, None]
        return np.array([int(session.run({"image": one})["scores"].argmax()) for one in inputs])


@pytest.fixture
def labeled(tmp_path):
    """An .npz of labeled inputs."""

    def make(**arrays) -> Path:
        path = tmp_path / "labeled.npz"
        np.savez(path, **{"pixels": PIXELS, **arrays})
        return path

    return make


@pytest.fixture
def request_for(tmp_path, classifier):
    """A request for the classifier through `onnx_to_onnx`, and what is changed of it."""

    def make(precision="fp32", **changes) -> ConvertRequest:
        (tmp_path / "out").mkdir(exist_ok=True)
        options, out = ConvertOptions(precision=precision), tmp_path / "out"
        request = ConvertRequest(
            source=classifier,
            steps=("onnx_to_onnx",),
            format="onnx",
            options=options,
            out=out,
            scratch=tmp_path,
            preprocess=WAY,
        )
        return replace(request, **changes)

    return make


def test_right_answers_are_counted_and_reported(request_for, step, labeled, answered):
    wrong = answered.copy()
    wrong[:10] = (wrong[:10] + 1) % 5
    result = convert(request_for(evaluation=labeled(classes=wrong)), silent)
    accuracy = result.accuracy
    assert (accuracy["samples"], accuracy["source"], accuracy["artifact"]) == (40, 0.75, 0.75)
    assert (accuracy["drop"], accuracy["max_drop"], accuracy["passed"]) == (0, 0.01, True)
    assert accuracy["bytes"] > 0
    assert (accuracy["lost"], accuracy["alike"]) == (0, 40)
    assert result.proof["accuracy"] == accuracy


def test_without_labeled_inputs_nothing_is_said_of_accuracy(request_for, step):
    result = convert(request_for(), silent)
    assert result.accuracy is None
    assert "accuracy" not in result.proof


def test_the_time_of_each_part_is_reported_and_not_written(request_for, step):
    request = request_for()
    result = convert(request, silent)
    assert set(result.seconds) == {"source", "onnx_to_onnx", "proof"}
    assert "seconds" not in (request.out / "manifest.json").read_text()


def test_a_result_that_is_right_too_seldom_fails(request_for, step, labeled, answered, make_classifier):
    step.result = make_classifier(change=lambda weights: np.roll(weights, 1, axis=1))
    request = request_for(evaluation=labeled(classes=answered), kept="out.failed")
    with pytest.raises(ProofError, match=r"^output 'scores' is too far .*; top-1 falls from 40 to") as caught:
        convert(request, silent)
    assert "out.failed" in caught.value.hint
    proof = Artifact.open(request.out).manifest.proof
    assert (proof["passed"], proof["accuracy"]["passed"]) == (False, False)
    assert proof["accuracy"]["alike"] == round(proof["accuracy"]["artifact"] * 40)  # the source was right each time


def test_an_offset_shifts_classes_and_not_rows(classifier, answered, labeled):
    reference = reference_of(classifier, OutputMeaning("probability", 1))
    with open_session(Artifact.open(classifier)) as session:
        assert right(make_accuracy_gate(labeled(rows=answered), 0.01, reference, session)) == 40
        keep = answered > 0
        path = labeled(pixels=PIXELS[keep], classes=answered[keep] - 1)
        assert right(make_accuracy_gate(path, 0.01, reference, session)) == keep.sum()


def test_arrays_will_do_as_well_as_pictures(classifier, answered, tmp_path):
    path = tmp_path / "arrays.npz"
    np.savez(path, anything=((PIXELS - 127.5) / 127.5).astype(np.float32), classes=answered)
    with open_session(Artifact.open(classifier)) as session:
        assert right(make_accuracy_gate(path, 0.01, reference_of(classifier), session)) == 40


def right(judge) -> int:
    return int((judge.source == judge.evaluation.rows).sum())


def reference_of(classifier, meaning=None, calibration=None) -> Reference:
    from converters.calibration.synthetic import make_inputs
    from converters.pipeline.verification import Samples

    with open_session(Artifact.open(classifier)) as session:
        samples = Samples(make_inputs(session.inputs, WAY), "synthetic")
        inputs, outputs = tuple(session.inputs), tuple(session.outputs)
        return Reference(
            inputs=inputs,
            outputs=outputs,
            samples=samples,
            calibration=calibration,
            answers={},
            preprocess=WAY,
            labels=None,
            meaning=meaning,
            notes=(),
        )


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "contains no labeled inputs"),
        ({"classes": np.zeros(40, int), "rows": np.zeros(40, int)}, "contains no labeled inputs"),
        ({"classes": np.zeros(39, int)}, "39 labels for a different number of inputs"),
        ({"classes": np.zeros(40)}, r"is float64\[40\]"),
        ({"classes": np.full(40, 5)}, "class 5 would be row 5 of the output, whose rows are 0 to 4"),
        ({"classes": np.full(40, -1)}, "class -1 would be row -1"),
    ],
)
def test_labels_that_do_not_fit(request_for, step, labeled, arrays, message):
    with pytest.raises(InputError, match=message):
        convert(request_for(evaluation=labeled(**arrays)), silent)
    assert step.calls == []


def test_labels_of_which_the_source_gets_none_right(request_for, step, labeled, answered):
    with pytest.raises(InputError, match="the source itself classifies none of the 40") as caught:
        convert(request_for(evaluation=labeled(classes=(answered + 1) % 5)), silent)
    assert "--label-offset" in caught.value.hint


def test_evaluation_and_calibration_may_not_overlap(request_for, step, labeled, answered, tmp_path):
    more = np.random.default_rng(4).integers(0, 256, (40, 4, 4, 3), np.uint8)
    np.savez(tmp_path / "samples.npz", pixels=np.concatenate([more, PIXELS[:1]]))
    with pytest.raises(InputError, match="1 of the 40 evaluation inputs are also calibration inputs"):
        convert(request_for("int8", samples=tmp_path / "samples.npz", evaluation=labeled(classes=answered)), silent)
    assert step.calls == []


def test_what_is_odd_about_the_labeled_inputs_is_noted(request_for, step, labeled, answered):
    one = int(np.bincount(answered).argmax())
    chosen = PIXELS[answered == one]
    path = labeled(pixels=chosen, classes=np.full(len(chosen), one))
    notes = " ".join(convert(request_for(evaluation=path), silent).notes)
    assert "have the same class" in notes
    assert f"{len(chosen)} evaluation inputs are few" in notes


def test_a_drop_is_allowed_up_to_its_limit():
    assert Accuracy(samples=100, source=90, result=89, lost=1, alike=98, allowed=0.01, size=1).passed
    assert not Accuracy(samples=100, source=90, result=88, lost=2, alike=97, allowed=0.01, size=1).passed
    assert Accuracy(samples=100, source=90, result=91, lost=0, alike=99, allowed=0.0, size=1).drop == pytest.approx(
        -0.01
    )


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """Networks trained on digits, calibration pixels and labeled pictures: see `tests/converters/digits/train.py`."""
    for name in ("tensorflow", "keras", "tf2onnx", "sklearn", "ai_edge_litert", "onnxruntime", "openvino", "PIL"):
        no_telemetry()
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("digits")
    script = Path(__file__).parents[2] / "converters" / "digits" / "train.py"
    subprocess.run([sys.executable, script, folder], check=True, capture_output=True)
    way = replace(WAY, size=8, crop=(8, 8))
    np.savez(folder / "samples.npz", pixels=load_all(find_pictures(folder / "calibration"), way))
    write_evaluation(folder / "labeled.npz", find_labeled(folder / "evaluation"), way, None)
    return folder, way


@pytest.fixture
def converted(digits, tmp_path):
    """Convert one of the digits' networks to int8."""
    folder, way = digits

    def make(name, target, max_drop=0.01, out="out"):
        place = tmp_path / out
        place.mkdir()
        options = ConvertOptions(precision="int8")
        request = ConvertRequest(
            source=folder / f"{name}.keras",
            steps=ROUTES[target],
            format=target,
            options=options,
            out=place,
            scratch=tmp_path / "scratch",
        )
        request = replace(request, samples=folder / "samples.npz", preprocess=way, kept=f"{out}.failed")
        return convert(replace(request, evaluation=folder / "labeled.npz", max_drop=max_drop), silent)

    return make


@pytest.mark.parametrize("target", ROUTES)
def test_digits_keep_their_accuracy_in_int8(converted, target):
    pytest.importorskip("nncf")
    accuracy = converted("digits", target).accuracy
    assert accuracy["source"] > 0.93  # 0.9616 with this seed; another CPU sums in another order
    assert (accuracy["source"] - accuracy["artifact"]) * accuracy["samples"] <= MAX_LOST
    assert "kept" not in accuracy


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_layer_that_int8_ruins_is_found_and_kept(converted, target):
    accuracy = converted("uneven", target).accuracy
    assert accuracy["before"]["artifact"] < 0.5
    assert accuracy["source"] - accuracy["artifact"] <= 0.01
    assert "first" in accuracy["kept"][0]
    assert len(accuracy["kept"]) <= 3  # those around one tensor, out of ten


def test_what_is_kept_gives_the_same_bytes_twice(converted, tmp_path):
    for out in ("first", "second"):
        converted("uneven", "tflite", out=out)
    names = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert [(tmp_path / "first" / name).read_bytes() for name in names] == [
        (tmp_path / "second" / name).read_bytes() for name in names
    ]


def test_openvino_keeps_layers_until_the_drop_is_small_enough(converted):
    pytest.importorskip("nncf")
    accuracy = converted("uneven", "openvino", max_drop=0.002).accuracy
    assert accuracy["artifact"] > accuracy["before"]["artifact"]
    assert len(accuracy["kept"]) > 1


def test_a_target_that_takes_int8_alone_fails_and_names_the_layers(converted, monkeypatch):
    monkeypatch.setattr("converters.pipeline.repair._can_keep", lambda done: False)
    with pytest.raises(ProofError, match=r"the layers that lose most: .*first.*noise") as caught:
        converted("uneven", "tflite")
    assert "needs every layer in int8" in caught.value.hint
