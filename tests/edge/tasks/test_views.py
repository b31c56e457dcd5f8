"""Printed results of tasks, and the scores of classification."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.evaluation.labeled_masks import LabeledMask
from edge.evaluation.labeled_objects import LabeledObject, LabeledObjects
from edge.inference.canvas import color_of
from edge.inference.images import load_picture
from edge.tasks import Confusion, Metrics, task_view
from edge.tasks.classification import ClassificationView
from edge.tasks.detection import DetectionView
from edge.tasks.embedding import EmbeddingView
from edge.tasks.instances import InstancesView
from edge.tasks.pose import PoseView
from edge.tasks.segmentation import SegmentationView
from edge.tasks.sound import SoundView
from edge.tasks.tensors import TensorsView
from edge.tasks.text import TextView
from edge.testing import TaskViewContract
from runtimes.artifact import Preprocess
from runtimes.errors import UsageError
from runtimes.tasks import task_ids
from runtimes.tasks.classification import Classification, ClassScore
from runtimes.tasks.detection import Detection, Detections
from runtimes.tasks.embedding import Embedding
from runtimes.tasks.instances import Instance, Instances
from runtimes.tasks.pose import COCO, KeyPoint, Pose, Poses
from runtimes.tasks.segmentation import Segmentation
from runtimes.tasks.sound import Sound
from runtimes.tasks.tensors import Tensors
from runtimes.tasks.text import TextClass, TextClasses

SURE = Classification((ClassScore(1, "dog", 0.9), ClassScore(0, "cat", 0.1)), 0.9)
NAMELESS = Classification((ClassScore(7, None, 0.5), ClassScore(1, None, 0.25)), 3.5)


CAT = LabeledObjects(objects=(LabeledObject(index=0, box=(1.0, 1.0, 6.0, 5.0), area=20.0),), classes=frozenset({0, 80}))
NOTHING = LabeledObjects(objects=(), classes=frozenset({0, 80}))
BODY = tuple(KeyPoint(name, 1.0, index / 3, 0.9) for index, name in enumerate(COCO))

POINTS = tuple(number for one in BODY for number in (one.x, one.y, 2.0))
STANDING = LabeledObjects(
    objects=(LabeledObject(index=0, box=(1.0, 2.0, 7.0, 6.0), area=20.0, points=POINTS),), classes=frozenset({0})
)


class Mask(LabeledMask):
    """A mask without a file."""

    def __init__(self, classes):
        super().__init__(Path("mask.png"))
        object.__setattr__(self, "found", np.asarray(classes))

    def classes(self):
        return self.found


class TestClassificationView(TaskViewContract):
    view = ClassificationView()
    results = ((SURE, 1), (NAMELESS, 1))

    def test_accuracy_is_a_share_of_all(self):
        found = self.view.score(self.results)
        assert found == Metrics(
            count=2, values={"top1": 0.5, "top5": 1.0}, classes={1: 0.5}, confusions=(Confusion(1, 7, 1),)
        )

    def test_a_class_without_a_name_is_shown_by_its_index(self):
        assert self.view.describe(NAMELESS).splitlines()[0] == "   0.5000  class (7)"


class TestDetectionView(TaskViewContract):
    view = DetectionView()
    results = (
        (Detections((Detection(0, "cat", 0.9, (1.0, 1.0, 6.0, 5.0)),)), CAT),
        (Detections((Detection(80, None, 0.5, (-3.0, 2.0, 900.0, 700.0), ((3.0, 3.0),)),)), NOTHING),
    )

    def test_a_line_holds_confidence_class_and_place(self):
        assert self.view.describe(self.results[0][0]) == "  0.9000  cat (0)  x 1 to 6, y 1 to 5"
        assert self.view.describe(Detections(())) == "  nothing found"

    def test_a_box_is_drawn_at_its_edge_in_the_color_of_its_class(self):
        image = pytest.importorskip("PIL.Image")
        box = Detections((Detection(2, "dog", 0.9, (20.0, 30.0, 80.0, 90.0)),))
        drawn = self.view.draw(image.new("RGB", (120, 120)), box)
        assert {drawn.getpixel(place) for place in ((20, 60), (79, 60), (50, 89))} == {color_of(2)}
        assert {drawn.getpixel(place) for place in ((18, 60), (22, 60), (82, 60), (50, 92))} == {(0, 0, 0)}


TRIANGLE = ((20.0, 30.0), (80.0, 30.0), (80.0, 90.0))


SMALL = Detection(0, "cat", 0.9, (1.0, 1.0, 6.0, 5.0))


class TestInstancesView(TaskViewContract):
    view = InstancesView()
    results = (
        (
            Instances((Instance(SMALL, ((1.0, 1.0), (6.0, 1.0), (6.0, 5.0))),)),
            CAT,
        ),
        (Instances((Instance(Detection(3, None, 0.5, (-3.0, 2.0, 900.0, 700.0)), ()),)), NOTHING),
    )

    def test_the_inside_is_tinted(self):
        image = pytest.importorskip("PIL.Image")
        result = Instances((Instance(Detection(2, "dog", 0.9, (20.0, 30.0, 80.0, 90.0)), TRIANGLE),))
        drawn = self.view.draw(image.new("RGB", (120, 120)), result)
        np.testing.assert_allclose(drawn.getpixel((70, 60)), np.array(color_of(2)) * 0.55, atol=2)
        assert drawn.getpixel((30, 80)) == (0, 0, 0)  # in the box, outside of the outline


class TestSegmentationView(TaskViewContract):
    view = SegmentationView()
    results = (
        (Segmentation(np.int64([[0, 1], [2, 2]]), (2, 2), ("background", "cat", "dog")), Mask([[0, 1], [2, 255]])),
        (Segmentation(np.full((3, 5), 7), (3, 5)), Mask(np.full((3, 5), 7))),
    )

    def test_a_line_holds_the_share_of_a_class(self):
        lines = self.view.describe(self.results[0][0]).splitlines()
        assert lines == ["   50.00%  dog (2)", "   25.00%  background (0)", "   25.00%  cat (1)"]

    def test_a_class_is_tinted_and_a_background_is_not(self):
        image = pytest.importorskip("PIL.Image")
        classes = np.zeros((60, 100), np.int64)
        classes[:, 50:] = 1
        drawn = self.view.draw(image.new("RGB", (100, 60), (9, 9, 9)), Segmentation(classes, (60, 100)))
        assert drawn.getpixel((20, 30)) == (9, 9, 9)
        red, green, blue = color_of(1)
        np.testing.assert_allclose(drawn.getpixel((98, 3)), np.array([red, green, blue]) * 0.55 + 9 * 0.45, atol=1)


class TestPoseView(TaskViewContract):
    view = PoseView()
    results = (
        (
            Poses((Pose(0.9, (1.0, 2.0, 7.0, 6.0), BODY),)),
            STANDING,
        ),
        (Poses((Pose(0.5, (0.0, 0.0, 5.0, 5.0), (KeyPoint("point 0", -4.0, 900.0, 0.7),)),)), NOTHING),
    )

    def test_a_line_for_the_person_and_one_for_each_point(self):
        lines = self.view.describe(self.results[1][0]).splitlines()
        assert lines == ["  0.5000  person  x 0 to 5, y 0 to 5", "    0.7000  point 0         x -4, y 900"]
        assert self.view.describe(Poses(())) == "  nobody found"


class TestSoundView(TaskViewContract):
    view = SoundView()
    results = (
        (Sound(np.float32([[0.9, 0.1], [0.2, 0.8], [0.1, 0.6]]), 0.5, ("cat", "dog")), 0),
        (Sound(np.float32([[0.2]]), 0.032), 0),
        (Sound(np.float32([[0.2]]), 0.032), -1),
    )

    def test_classes_come_first_then_the_times_they_are_heard(self):
        assert self.view.describe(self.results[0][0]).splitlines() == [
            "   0.9000  cat (0)",
            "   0.8000  dog (1)",
            "      0.00 s to 0.50 s  cat  0.9000",
            "      0.50 s to 1.50 s  dog  0.8000",
        ]
        assert self.view.row(self.results[0][0])["rows"] == 3

    def test_a_single_class_is_right_where_it_is_heard_as_labeled(self):
        assert self.view.score(self.results).values == pytest.approx({"top1": 2 / 3, "f1": 2 / 3})


class TestEmbeddingView(TaskViewContract):
    view = EmbeddingView()
    near = Embedding(np.float32([3, 4]))
    results = (
        (near, None),
        (near.compared({"cat.txt": Embedding(np.float32([4, 3])), "dog.txt": near}), None),
    )

    def test_cosines_stand_below_the_numbers(self):
        assert self.view.describe(self.results[1][0]).splitlines() == [
            "  2 numbers of length 5: 3.0000, 4.0000",
            "   1.0000  dog.txt",
            "   0.9600  cat.txt",
        ]


class TestTextView(TaskViewContract):
    view = TextView()
    results = (
        (TextClasses((TextClass("good", 1, 0.7), TextClass("bad", 0, 0.3))), 1),
        (TextClasses((TextClass(None, 0, 0.9),)), 1),
    )

    def test_accuracy_is_a_share_of_all(self):
        found = self.view.score(self.results)
        assert found.values == pytest.approx({"top1": 0.5, "f1": 2 / 3})
        assert found.classes == {1: 0.5}
        assert [tuple(one) for one in found.confusions] == [(1, 0, 1)]

    def test_a_class_without_a_name_is_shown_by_its_index(self):
        assert self.view.describe(self.results[1][0]) == "   0.9000  class (0)"


class TestTensorsView(TaskViewContract):
    view = TensorsView()
    results = ((Tensors({"y": np.float32([[1, np.nan]]), "n": np.int64([3])}), None),)

    def test_one_line_names_each_output(self):
        assert self.view.describe(self.results[0][0]).splitlines() == [
            "  y  float32[1, 2]  min 1, max 1, mean 1, 1 NaN or infinite",
            "  n  int64[1]  min 3, max 3, mean 3",
        ]


@pytest.mark.parametrize("name", task_ids())
def test_every_task_has_a_view_that_is_tested_here(name):
    view = task_view(name)
    assert view.id == name
    assert f"Test{type(view).__name__}" in globals()


def test_a_task_without_a_view_is_shown_as_json():
    view = task_view("counting_sheep")
    assert '"probability": 0.9' in view.describe(SURE)
    with pytest.raises(UsageError):
        view.score([])


@pytest.mark.parametrize(("resize", "size"), [("shorter_side", 12), ("stretch", 8), ("letterbox", 8)])
def test_a_place_in_the_input_is_found_again_in_the_picture(tmp_path: Path, resize: str, size: int):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((60, 90, 3), np.uint8)
    pixels[25:35, 50:60] = 255  # its center at x 55, y 30
    image.fromarray(pixels).save(tmp_path / "dot.png")
    preprocess = Preprocess(resize, size, (8, 8), "bilinear", "NHWC", "RGB", (0.0,) * 3, (1.0,) * 3)
    seen, placement = load_picture(tmp_path / "dot.png", preprocess)
    weight = seen[..., 0].astype(float) / seen[..., 0].sum()
    rows, columns = np.mgrid[0:8, 0:8] + 0.5
    center = [float((weight * columns).sum()), float((weight * rows).sum())]
    assert placement.size == (90, 60)
    np.testing.assert_allclose(placement.to_picture(np.array([center])), [[55, 30]], atol=3)
