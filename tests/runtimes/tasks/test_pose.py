"""Key points of MoveNet and YOLO-pose, on known points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import GIVEN, Labels, ModelFacts
from runtimes.task import DecodeOptions, Placement
from runtimes.tasks import recognize
from runtimes.tasks.pose import COCO, KeyPoint, MoveNet, Pose, Poses, PoseTask, YoloPose
from runtimes.testing.task_contract import TaskContract, TaskExample

SIZE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2
POINTS = np.stack([np.linspace(8, 40, 17), np.linspace(20, 60, 17)], axis=1)  # x, y in pixels
BOX = (8.0, 20.0, 40.0, 60.0)


def facts(*shape, **known):
    picture = TensorSpec("x", "uint8", (1, SIZE, SIZE, 3))
    return ModelFacts("m", "tflite", inputs=(picture,), outputs=(TensorSpec("y", "float32", shape),), **known)


def movenet(points=POINTS):
    array = np.full((1, 1, 17, 3), 0.8, np.float32)
    array[0, 0, :, :2] = points[:, ::-1] / SIZE
    return array


def several(points=POINTS):
    array = np.zeros((1, 6, 56), np.float32)
    array[0, 3, :51] = movenet(points).reshape(-1)
    array[0, 3, 51:] = 20 / SIZE, 8 / SIZE, 60 / SIZE, 40 / SIZE, 0.7
    return array


def cells(points=POINTS, unit=1.0):
    array = np.zeros((1, 56, CELLS), np.float32)
    array[0, :4] = 3 * unit
    for place, score in ((10, 0.7), (11, 0.6)):
        array[0, :5, place] = 24 * unit, 40 * unit, 32 * unit, 40 * unit, score
        array[0, 5:, place] = np.concatenate([points * unit, np.full((17, 1), 0.8)], axis=1).reshape(-1)
    return array


def selected(points=POINTS):
    array = np.zeros((1, 300, 57), np.float32)
    array[0, 0, :6] = *BOX, 0.7, 0
    array[0, 0, 6:] = np.concatenate([points, np.full((17, 1), 0.8)], axis=1).reshape(-1)
    return array


class TestContract(TaskContract):
    task = PoseTask()
    examples = (
        TaskExample(facts(1, 1, 17, 3), {"y": movenet()}, {"y": movenet(POINTS[::-1])}),
        TaskExample(facts(1, 6, 56), {"y": several()}, {"y": several(POINTS[::-1])}),
        TaskExample(facts(1, 56, CELLS, task="pose"), {"y": cells()}, {"y": cells(POINTS[::-1])}),
    )
    foreign = (
        facts(1, 1, 17, 2),
        facts(1, 57, CELLS),
        facts(1, 56, CELLS, labels=Labels(tuple(map(str, range(52))), "the file")),
        facts(1, 56),
        facts(1, 300, 57),
        replace(facts(1, 1, 17, 3), inputs=(TensorSpec("x", "float32", (1, 51)),)),
    )


@pytest.mark.parametrize(
    ("kind", "model", "array"),
    [
        (MoveNet, facts(1, 1, 17, 3), movenet()),
        (MoveNet, facts(1, 6, 56), several()),
        (YoloPose, facts(1, 56, CELLS), cells()),
        (YoloPose, facts(1, 56, CELLS, task="pose"), cells(unit=1 / SIZE)),
        (YoloPose, facts(1, CELLS, 56), cells().transpose(0, 2, 1)),
        (YoloPose, facts(1, "n", "m", task="pose", metadata={"kpt_shape": "[17, 3]"}), cells()),
        (YoloPose, facts(1, 300, 57, task="pose"), selected()),
    ],
)
def test_known_points_are_found_in_every_layout(kind, model, array):
    decoder = PoseTask().recognize(model)
    assert isinstance(decoder, kind)
    (pose,) = decoder.decode({"y": array}).poses
    np.testing.assert_allclose([(one.x, one.y) for one in pose.keypoints], POINTS, atol=1e-3)
    np.testing.assert_allclose(pose.box, BOX, atol=1e-3)
    assert [one.name for one in pose.keypoints] == list(COCO)
    assert pose.keypoints[0].score == pytest.approx(0.8, abs=1e-6)
    assert pose.score == pytest.approx(0.8 if array.shape == (1, 1, 17, 3) else 0.7, abs=1e-6)


@pytest.mark.parametrize(("count", "numbers"), [(5, 3), (4, 2), (21, 3)])
def test_a_named_task_has_as_many_points_as_its_numbers_hold(count, numbers):
    points = np.stack([np.linspace(8, 40, count), np.linspace(20, 60, count)], axis=1)
    array = np.zeros((1, 5 + count * numbers, CELLS), np.float32)
    array[0, :5, 10] = 24, 40, 32, 40, 0.7
    array[0, 5:, 10] = np.concatenate([points, np.full((count, 1), 0.8)], axis=1)[:, :numbers].reshape(-1)
    for given in (array, array.transpose(0, 2, 1)):
        decoder = PoseTask().recognize(facts(*given.shape, task="pose"))
        assert f"{count} key points of {numbers} numbers" in decoder.assumptions[0]
        (pose,) = decoder.decode({"y": given}).poses
        np.testing.assert_allclose([(one.x, one.y) for one in pose.keypoints], points, atol=1e-3)
    assert PoseTask().recognize(facts(1, 5 + count * numbers, CELLS)) is None  # nothing names the task


ANIMALS = Labels(("cat", "dog", "horse"), "the file")
FOUR = np.float32([[10, 22], [38, 22], [38, 58], [10, 58]])


def animals(classes=3, numbers=2):
    """Two boxes in one place, which are of different classes, and a third one that repeats the first."""
    array = np.zeros((1, 4 + classes + 4 * numbers, CELLS), np.float32)
    array[0, :4] = 3
    for place, index, score in ((10, 1, 0.9), (11, 1, 0.8), (20, 0, 0.7)):
        array[0, :4, place] = 24, 40, 32, 40
        array[0, 4 + index, place] = score
        points = np.concatenate([FOUR, np.full((4, 1), 0.8, np.float32)], axis=1)[:, :numbers]
        array[0, 4 + classes :, place] = points.reshape(-1)
    return array


def selected_animals(numbers=2):
    array = np.zeros((1, 300, 6 + 4 * numbers), np.float32)
    for row, (index, score) in enumerate(((1, 0.9), (0, 0.7))):
        array[0, row, :6] = *BOX, score, index
        points = np.concatenate([FOUR, np.full((4, 1), 0.8, np.float32)], axis=1)[:, :numbers]
        array[0, row, 6:] = points.reshape(-1)
    return array


@pytest.mark.parametrize("numbers", [2, 3])
@pytest.mark.parametrize(
    ("layout", "count"),
    [
        *((layout, count) for layout in ("cells", "turned", "selected", "free") for count in (2, 3)),
        ("free and selected", 3),  # of two classes, such rows look like cells: nothing but the sizes tells
    ],
)
def test_key_points_of_several_classes(layout, count, numbers):
    array = selected_animals(numbers) if "selected" in layout else animals(count, numbers)
    array = array.transpose(0, 2, 1) if layout == "turned" else array
    shape = (1, "n", "m") if "free" in layout else array.shape
    stated = {"kpt_shape": f"[4, {numbers}]"}
    labels = Labels(ANIMALS.names[:count], "the file")
    decoder = PoseTask().recognize(facts(*shape, task="pose", metadata=stated, labels=labels))
    found = decoder.decode({"y": array}).poses
    assert [(one.index, one.label, round(one.score, 3)) for one in found] == [(1, "dog", 0.9), (0, "cat", 0.7)]
    for one in found:
        np.testing.assert_allclose(one.box, BOX, atol=1e-3)
        np.testing.assert_allclose([(point.x, point.y) for point in one.keypoints], FOUR, atol=1e-3)
    assert found[0].to_json()["label"] == "dog"
    assert decoder.class_names() == dict(enumerate(labels.names))
    other = Poses(tuple(replace(one, index=2) for one in found))
    assert not PoseTask().compare(Poses(found), other).agrees


def test_a_model_of_one_class_has_persons_without_a_class():
    labels = Labels(("person",), "the file")
    decoder = PoseTask().recognize(facts(1, 56, CELLS, task="pose", labels=labels))
    (pose,) = decoder.decode({"y": cells()}).poses
    assert (pose.name, pose.index) == ("person", None)
    assert set(pose.to_json()) == {"score", "box", "keypoints"}
    assert decoder.class_names() == {}


def test_points_that_are_not_seen_are_not_in_the_box():
    array = movenet()
    array[0, 0, 16, 2] = 0.01
    (pose,) = PoseTask().recognize(facts(1, 1, 17, 3)).decode({"y": array}).poses
    np.testing.assert_allclose(pose.box, (8, 20, POINTS[15, 0], POINTS[15, 1]), atol=1e-3)


def test_the_user_sets_the_confidence():
    decoder = PoseTask().recognize(facts(1, 56, CELLS)).configured(DecodeOptions(confidence=0.9))
    assert decoder.decode({"y": cells()}).poses == ()


def test_a_pose_is_no_detection_and_a_detection_no_pose():
    assert recognize(facts(1, 56, CELLS))[0].id == "pose"
    assert recognize(facts(1, 84, CELLS))[0].id == "detection"


@pytest.mark.parametrize("shape", [(1, 1, 17, 3), (1, 56, CELLS)])
def test_outputs_of_another_layout_are_refused(shape):
    with pytest.raises(InputError):
        PoseTask().recognize(facts(*shape)).decode({"y": np.zeros((1, 55, 7), np.float32)})


def test_labels_of_more_than_persons_are_refused():
    given = Labels(("person", "dog"), "names.txt", GIVEN)
    for model in (facts(1, 1, 17, 3), facts(1, 56, CELLS, task="pose")):
        with pytest.raises(InputError, match=r"names.txt has 2 labels; the model has 1 class"):
            PoseTask().recognize(replace(model, labels=given))
        assert PoseTask().recognize(replace(model, labels=replace(given, names=("person",)))) is not None


def test_places_are_mapped_to_the_picture():
    pose = Pose(0.5, (0.0, 16.0, 32.0, 48.0), (KeyPoint("nose", 16.0, 32.0, 0.9),))
    (found,) = Poses((pose,)).in_picture(Placement((200, 100), (0.32, 0.32), (0.0, 16.0))).poses
    np.testing.assert_allclose(found.box, (0, 0, 100, 100))
    assert (found.keypoints[0].x, found.keypoints[0].y) == (50.0, 50.0)


def test_a_missing_person_is_reported():
    pose = Pose(0.5, BOX, (KeyPoint("nose", 16.0, 32.0, 0.9),))
    assert not PoseTask().compare(Poses((pose,)), Poses(())).agrees
    near = replace(pose, keypoints=(KeyPoint("nose", 17.0, 32.0, 0.9),))
    assert PoseTask().compare(Poses((pose,)), Poses((near,))).agrees
