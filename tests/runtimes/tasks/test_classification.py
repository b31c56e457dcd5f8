"""Which models are classifiers, and their scores, compared with hand-computed numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact.manifest import OutputMeaning, Quantization, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.model_files.facts import ASSUMED, GIVEN, MANIFEST, READ, Labels, ModelFacts
from runtimes.task import DecodeOptions
from runtimes.tasks.classification import Classification, ClassificationTask, ClassScore, ClassScores
from runtimes.testing.task_contract import TaskContract, TaskExample

PICTURE = TensorSpec("x", "float32", (1, 8, 8, 3))


def scores(dtype="float32", shape=(1, 4), scale=None, zero_point=0):
    return TensorSpec("y", dtype, shape, Quantization((scale,), (zero_point,)) if scale else None)


def facts(output=None, **known):
    return ModelFacts("model.onnx", "onnx", inputs=(PICTURE,), outputs=(output or scores(),), **known)


def recognized(*args, **known):
    return ClassificationTask().recognize(facts(*args, **known))


def decoded(values, output, meaning, labels=None, count=5):
    array = np.asarray(values)
    return ClassScores(output, meaning, labels, count).decode({"y": array})


class TestContract(TaskContract):
    task = ClassificationTask()
    examples = (
        TaskExample(
            facts(output_operator="Softmax"),
            {"y": np.array([[0.1, 0.7, 0.1, 0.1]], np.float32)},
            {"y": np.array([[0.1, 0.1, 0.1, 0.7]], np.float32)},
        ),
        TaskExample(
            facts(scores("uint8", (1, 4), 0.5, 10), output_kind="logit", labels=Labels(tuple("abcd"), "names.txt")),
            {"y": np.array([[10, 20, 30, 200]], np.uint8)},
            {"y": np.array([[200, 20, 30, 10]], np.uint8)},
        ),
    )
    foreign = (
        facts(scores(shape=(1, 8, 8, 4)), output_operator="Softmax"),
        facts(scores(shape=(1, 1)), output_operator="Sigmoid"),
        facts(scores(shape=(1, 512)), output_operator="Gemm"),
        facts(scores(shape=(1, 34)), output_operator="Sigmoid"),
        facts(scores("int8", (1, 4), 1 / 256, -128), output_operator="LOGISTIC"),
        ModelFacts("model.onnx", "onnx"),
    )


# ---- which models


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
    decoder = recognized(output_operator=operator, labels=Labels(tuple("abcd"), "the file", READ))
    assert decoder.meaning.kind == kind
    assert any(operator in line and "--output" in line for line in decoder.assumptions)


@pytest.mark.parametrize(("dtype", "zero_point"), [("uint8", 0), ("int8", -128)])
def test_a_compiled_output_with_a_softmaxs_scale_is_probabilities(dtype, zero_point):
    decoder = recognized(scores(dtype, (1, 4), 1 / 256, zero_point), output_operator="edgetpu-custom-op")
    assert decoder.meaning.kind == "probability"
    assert "1/256" in decoder.assumptions[0]


def test_a_compiled_output_with_another_scale_is_logits_where_its_classes_have_names():
    compiled = {"output": scores("uint8", (1, 4), 0.1, 58), "output_operator": "edgetpu-custom-op"}
    assert recognized(**compiled) is None
    assert recognized(**compiled, labels=Labels(tuple("abcd"), "the file", READ)).meaning.kind == "logit"


def test_classes_of_unknown_origin_are_asked_for_their_kind():
    labels = Labels(tuple("abcd"), "the file", READ)
    with pytest.raises(UsageError, match="how its output is computed"):
        recognized(labels=labels)
    assert recognized(labels=labels, output_kind="logit").meaning.kind == "logit"


def test_imagenets_number_of_classes_counts_for_pictures_alone():
    labels = Labels(tuple(map(str, range(1000))), "ImageNet's", ASSUMED)
    known = {"output": scores(shape=(1, 1000)), "output_operator": "Gemm", "labels": labels}
    decoder = recognized(**known)
    assert decoder.labels == labels.names
    assert "the 1000 classes are ImageNet's (--labels)" in decoder.assumptions
    words = replace(facts(**known), inputs=(TensorSpec("tokens", "int64", (1, 16)),))
    assert ClassificationTask().recognize(words) is None


def test_what_the_manifest_leaves_out_is_not_there():
    decoder = recognized(output_kind="logit", label_offset=1, origins={"output_kind": MANIFEST})
    assert decoder == ClassScores(scores(), OutputMeaning("logit", 1))


@pytest.mark.parametrize("known", [{"output_kind": "logit"}, {"labels": Labels(("a",), "names.txt", GIVEN)}])
@pytest.mark.parametrize("shape", [(1, 8, 8, 4), (), (2, 4)])
def test_what_is_stated_and_cannot_be_is_refused(known, shape):
    with pytest.raises(InputError, match="does not classify"):
        recognized(scores(shape=shape), **known)


def test_labels_that_do_not_fit_are_refused_where_they_were_given():
    with pytest.raises(InputError, match=r"names.txt has 1 label; the model has 4 classes"):
        recognized(output_operator="Softmax", labels=Labels(("a",), "names.txt", GIVEN))
    assert recognized(output_operator="Softmax", labels=Labels(("a",), "the file", READ)).labels is None


def test_1000_labels_fit_1001_classes():
    labels = Labels(tuple(f"name {i}" for i in range(1000)), "names.txt", GIVEN)
    decoder = recognized(scores(shape=(1, 1001)), output_operator="Softmax", labels=labels)
    assert (decoder.labels[:2], decoder.meaning.label_offset) == (("background", "name 0"), 1)


def test_the_background_has_its_name_without_labels():
    decoder = recognized(scores(shape=(1, 1001)), output_operator="Softmax", label_offset=1)
    answer = np.zeros((1, 1001), np.float32)
    answer[0, 0] = 1
    first, second, *_ = decoder.decode({"y": answer}).classes
    assert ((first.index, first.label), (second.index, second.label)) == ((-1, "background"), (0, None))
    assert (decoder.class_names()[-1], decoder.class_names()[0]) == ("background", None)


@pytest.mark.parametrize("quantization", [Quantization((0.0,), (0,)), Quantization((1.0,) * 2, (0,) * 2, 9)])
def test_a_broken_quantization_is_refused(quantization):
    with pytest.raises(InputError, match="the quantization of 'y' is broken"):
        recognized(TensorSpec("y", "uint8", (1, 4), quantization), output_kind="logit")


# ---- what outputs say


def test_logits_become_probabilities_and_probabilities_stay():
    result = decoded(np.float32([[1000, 1000, -1000]]), scores(shape=(1, 3)), OutputMeaning("logit"))
    assert [one.probability for one in result.classes] == [0.5, 0.5, 0.0]
    given = decoded(np.float32([[0.9, 0.1]]), scores(shape=(1, 2)), OutputMeaning("probability"))
    np.testing.assert_allclose([one.probability for one in given.classes], [0.9, 0.1], rtol=1e-6)


def test_the_published_raw_scores():
    """255/256 of a saturated softmax, and (222 − 58) × 0.09889254 of the tensor before it."""
    softmax = scores("uint8", (1, 2), 1 / 256, 0)
    assert decoded(np.uint8([[255, 1]]), softmax, OutputMeaning("probability")).raw == 255 / 256
    logits = scores("uint8", (1, 2), 0.09889253973960876, 58)
    assert decoded(np.uint8([[222, 58]]), logits, OutputMeaning("logit")).raw == pytest.approx(16.2184, abs=5e-5)


def test_indices_count_real_classes_and_ties_go_to_the_lower_one():
    values, output = np.float32([[0.0, 0.2, 0.5, 0.2, 0.1]]), scores(shape=(1, 5))
    names = ("background", "a", "b", "c", "d")
    result = decoded(values, output, OutputMeaning("probability", 1), names, count=3)
    assert [(one.index, one.label) for one in result.classes] == [(1, "b"), (0, "a"), (2, "c")]
    assert result.to_json()[0] == {"index": 1, "label": "b", "probability": 0.5}
    plain = decoded(values, output, OutputMeaning("probability"), count=1)
    assert plain == Classification((ClassScore(2, None, 0.5),), 0.5)
    assert decoded(np.float32([[1.0]]), scores(shape=(1,)), OutputMeaning("probability", 1), ()).classes[0].index == -1


def test_the_user_says_how_many_classes_are_listed():
    decoder = recognized(output_operator="Softmax").configured(DecodeOptions(top=2))
    assert len(decoder.decode({"y": np.float32([[0.1, 0.2, 0.3, 0.4]])}).classes) == 2


@pytest.mark.parametrize(("values", "words"), [([[0.1] * 8], "8 numbers"), ([[0.5, np.nan, 0, 0]], "NaN")])
def test_outputs_that_are_no_classes_are_refused(values, words):
    with pytest.raises(InputError, match=words):
        decoded(np.float32(values), scores(), OutputMeaning("probability"))


def test_two_classes_in_a_tie_may_change_places():
    one = Classification((ClassScore(0, "a", 0.41), ClassScore(1, "b", 0.40)), 1.0)
    other = Classification((ClassScore(1, "b", 0.42), ClassScore(0, "a", 0.40)), 1.0)
    agreement = ClassificationTask().compare(one, other)
    assert agreement.agrees
    assert agreement.metrics["top1_equal"] == 0.0
    assert agreement.metrics["probability_difference"] == pytest.approx(0.02)
