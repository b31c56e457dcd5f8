"""Class maps and score maps, on known maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact.manifest import Quantization, TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import GIVEN, Labels, ModelFacts, Producer
from runtimes.task import Placement
from runtimes.tasks import recognize
from runtimes.tasks.segmentation import ClassMap, ClassScoreMap, Segmentation, SegmentationTask
from runtimes.testing.task_contract import TaskContract, TaskExample

SIZE = 64
NAMES = Labels(("background", "cat", "dog", "bird"), "the file")
HALF = np.zeros((SIZE, SIZE), np.int64)
HALF[:, 32:] = 2  # the right half is class 2


def facts(output, dtype="float32", **known):
    picture = TensorSpec("x", "float32", (1, 3, SIZE, SIZE))
    spec = output if isinstance(output, TensorSpec) else TensorSpec("y", dtype, output)
    return ModelFacts("model.onnx", "onnx", inputs=(picture,), outputs=(spec,), **known)


def scores(classes=HALF, count=4):
    array = np.full((1, count, *classes.shape), -1.0, np.float32)
    np.put_along_axis(array[0], classes[np.newaxis], 1.0, axis=0)
    return array


WHOLE = facts((1, SIZE, SIZE), "int64", output_operator="ArgMax")


class TestContract(TaskContract):
    task = SegmentationTask()
    examples = (
        TaskExample(WHOLE, {"y": HALF[np.newaxis]}, {"y": HALF.T[np.newaxis]}),
        TaskExample(facts((1, 4, SIZE, SIZE)), {"y": scores()}, {"y": scores(HALF.T)}),
        TaskExample(
            facts((1, SIZE, SIZE, 4), labels=NAMES),
            {"y": scores().transpose(0, 2, 3, 1)},
            {"y": scores(HALF.T).transpose(0, 2, 3, 1)},
        ),
    )
    foreign = (
        facts((1, 3, SIZE, SIZE)),
        facts((1, 1, SIZE, SIZE), output_operator="Sigmoid"),
        facts((1, 512, 8, 8)),
        facts((1, 4, SIZE, 8)),
        facts((1, 1000)),
        facts((1, 300, 6)),
        replace(WHOLE, inputs=(TensorSpec("tokens", "int64", (1, SIZE)),)),
    )


def decoded(model, array):
    decoder = SegmentationTask().recognize(model)
    assert decoder is not None
    return decoder.decode({"y": array})


@pytest.mark.parametrize(
    ("kind", "model", "array"),
    [
        (ClassMap, WHOLE, HALF[np.newaxis]),
        (ClassMap, facts((1, 1, SIZE, SIZE), "int32"), HALF[np.newaxis, np.newaxis].astype(np.int32)),
        (ClassMap, facts((1, SIZE, SIZE, 1), "uint8"), HALF[np.newaxis, ..., np.newaxis].astype(np.uint8)),
        (ClassScoreMap, facts((1, 4, SIZE, SIZE)), scores()),
        (ClassScoreMap, facts((1, SIZE, SIZE, 4)), scores().transpose(0, 2, 3, 1)),
        (ClassScoreMap, facts((1, 3, SIZE, SIZE), output_operator="Softmax"), scores(count=3)),
        (ClassScoreMap, facts((1, 4, 16, 16), task="segmentation"), scores(HALF[::4, ::4])),
    ],
)
def test_a_known_map_is_found_in_every_layout(kind, model, array):
    assert isinstance(SegmentationTask().recognize(model), kind)
    found = decoded(model, array).in_picture(Placement((SIZE, SIZE), (1.0, 1.0), (0.0, 0.0)))
    np.testing.assert_array_equal(found.classes, HALF)
    assert found.to_json() == {
        "classes": [{"index": 0, "label": None, "share": 0.5}, {"index": 2, "label": None, "share": 0.5}],
        "size": [SIZE, SIZE],
    }


@pytest.mark.parametrize(("operator", "low", "high"), [("Sigmoid", 0.1, 0.9), ("Conv", -3.0, 3.0)])
def test_a_single_class_is_a_foreground(operator, low, high):
    model = facts((1, 1, SIZE, SIZE), output_operator=operator, task="segmentation")
    array = np.where(HALF, high, low)[np.newaxis, np.newaxis].astype(np.float32)
    assert decoded(model, array).shares == {0: 0.5, 1: 0.5}


def test_quantized_scores_are_dequantized():
    spec = TensorSpec("y", "uint8", (1, 4, SIZE, SIZE), Quantization((-1.0,), (0,)))  # the largest number is the least
    assert decoded(facts(spec), np.where(scores() > 0, 0, 255).astype(np.uint8)).shares == {0: 0.5, 2: 0.5}


def test_a_map_is_brought_back_through_a_letterbox():
    inner = np.zeros((SIZE, SIZE), np.int64)
    inner[16:48] = 1  # the picture's area
    inner[16:48, 32:] = 2
    found = Segmentation(inner, (SIZE, SIZE)).in_picture(Placement((200, 100), (0.32, 0.32), (0.0, 16.0)))
    assert found.classes.shape == (100, 200)
    assert (found.classes[:, :100] == 1).all()
    assert (found.classes[:, 100:] == 2).all()


def test_names_that_do_not_fit():
    with pytest.raises(InputError, match="has 2 labels; the model has 4 classes"):
        SegmentationTask().recognize(facts((1, 4, SIZE, SIZE), labels=Labels(("a", "b"), "names.txt", GIVEN)))
    few = replace(WHOLE, labels=Labels(("a", "b"), "names.txt", GIVEN))
    with pytest.raises(InputError, match="the model found class 2, counted from 0, and has 2 labels"):
        decoded(few, HALF[np.newaxis])  # a map of indices does not show how many classes there are
    with pytest.raises(InputError, match=r"names.txt has 2 labels; the model has 3 classes"):
        SegmentationTask().recognize(replace(few, producers=(Producer("ArgMax", classes=3),)))
    assert decoded(replace(WHOLE, labels=NAMES), HALF[np.newaxis]).label(2) == "dog"


@pytest.mark.parametrize("array", [np.zeros((2, 4, SIZE, SIZE)), np.full((1, 4, SIZE, SIZE), np.nan)])
def test_what_is_no_map_is_refused(array):
    with pytest.raises(InputError):
        decoded(facts((1, 4, SIZE, SIZE)), array.astype(np.float32))


def test_a_few_wrong_pixels_agree_and_a_lost_class_does_not():
    one = Segmentation(HALF, (SIZE, SIZE))
    some = HALF.copy()
    some[:1] = 0
    assert SegmentationTask().compare(one, Segmentation(some, (SIZE, SIZE))).agrees
    small = HALF.copy()
    small[:6, :6] = 3  # 36 of 4096 pixels
    agreement = SegmentationTask().compare(Segmentation(small, (SIZE, SIZE)), one)
    assert agreement.metrics["equal_pixels"] > 0.99
    assert not agreement.agrees
    assert "class 3 has 0.000" in agreement.message


def test_a_classifier_is_no_segmenter():
    assert recognize(facts((1, 4), output_operator="Softmax"))[0].id == "classification"
