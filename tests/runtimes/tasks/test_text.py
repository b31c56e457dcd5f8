"""Classes of texts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import GIVEN, READ, Labels, ModelFacts, TextInputs
from runtimes.task import DecodeOptions
from runtimes.tasks import recognize
from runtimes.tasks.text import TextClass, TextClasses, TextTask
from runtimes.testing.task_contract import TaskContract, TaskExample

MOODS = Labels(("bad", "fair", "good"), "config.json", READ)
NAMES = ("serving_default_input_ids:0", "serving_default_attention_mask:0", "serving_default_token_type_ids:0")


def moods(classes=3, inputs=NAMES[:2], **known):
    specs = tuple(TensorSpec(name, "int32", (1, 8)) for name in inputs)
    known = {"labels": MOODS, "output_operator": "Gemm", **known}
    return ModelFacts("m", "tflite", specs, (TensorSpec("y", "float32", (1, classes)),), **known)


class TestContract(TaskContract):
    task = TextTask()
    examples = (TaskExample(moods(), {"y": np.float32([[0, 1, 4]])}, {"y": np.float32([[4, 1, 0]])}),)
    foreign = (
        moods(labels=None),
        moods(inputs=("x",)),
        moods(inputs=(NAMES[0], "another")),
        replace(moods(), outputs=(TensorSpec("y", "float32", (1, 8, 3)),)),
        ModelFacts("m", "onnx"),
    )


def decoded(model, output):
    task, decoder = recognize(model)
    assert task.id == "text"
    return task.decode({"y": np.float32([output])}, decoder)


def test_logits_become_shares_with_the_classes_names():
    found = decoded(moods(), [0, 0, np.log(2)])
    assert [(one.label, one.index, round(one.score, 4)) for one in found.classes] == [
        ("good", 2, 0.5),
        ("bad", 0, 0.25),
        ("fair", 1, 0.25),
    ]
    assert TextTask().recognize(moods()).configured(DecodeOptions(top=1)).count == 1


def test_probabilities_stay_and_a_single_logit_is_a_sigmoid():
    assert decoded(moods(output_operator="SOFTMAX"), [0.1, 0.2, 0.7]).classes[0].score == pytest.approx(0.7)
    (one,) = decoded(moods(1, labels=None, task="text"), [0.0]).classes
    assert one == TextClass(None, 0, 0.5)


def test_inputs_are_recognized_by_the_names_that_exporters_give_them():
    assert moods(inputs=NAMES).text_inputs == TextInputs(*NAMES)
    assert moods(inputs=NAMES[:1]).text_inputs == TextInputs(NAMES[0])
    assert moods(inputs=NAMES[1:]).text_inputs is None


def test_labels_of_another_number_are_refused():
    with pytest.raises(InputError) as caught:
        TextTask().recognize(moods(labels=Labels(("a",), "names.txt", GIVEN)))
    assert caught.value.message == "names.txt has 1 label; the model has 3 classes"


def classes(*scores):
    found = sorted((TextClass(None, index, score) for index, score in enumerate(scores)), key=lambda one: -one.score)
    return TextClasses(tuple(found))


@pytest.mark.parametrize(
    ("one", "other", "agrees"),
    [
        (classes(0.8, 0.2), classes(0.6, 0.4), True),
        (classes(0.51, 0.49), classes(0.49, 0.51), True),  # a tie
        (classes(0.8, 0.2), classes(0.2, 0.8), False),
        (classes(0.9), classes(0.2), False),
        (classes(0.9), classes(0.88), True),
    ],
)
def test_texts_agree_with_the_same_class(one, other, agrees):
    assert TextTask().compare(one, other).agrees is agrees
