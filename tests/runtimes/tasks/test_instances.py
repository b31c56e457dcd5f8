"""Objects with outlines, of a YOLO-seg with known prototypes."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from runtimes.artifact.manifest import TensorSpec
from runtimes.decoders.polygons import area, contains, outline
from runtimes.errors import InputError
from runtimes.model_files.facts import GIVEN, Labels, ModelFacts
from runtimes.task import DecodeOptions, Placement
from runtimes.tasks import recognize
from runtimes.tasks.instances import Instances, InstancesTask, polygon_iou
from runtimes.testing.task_contract import TaskContract, TaskExample

SIZE, GRID = 64, 16
CELLS = 8 * 8 + 4 * 4 + 2 * 2
BOX = (8.0, 16.0, 40.0, 48.0)
NAMES = Labels(("cat", "dog"), "the file")


def facts(rows=(1, 4 + 2 + 3, CELLS), prototypes=(1, 3, GRID, GRID), **known):
    picture = TensorSpec("x", "float32", (1, 3, SIZE, SIZE))
    outputs = TensorSpec("y", "float32", rows), TensorSpec("p", "float32", prototypes)
    return ModelFacts("m", "onnx", inputs=(picture,), outputs=outputs, **known)


def prototypes():
    """Three planes, −1 and 1: left of x 24, above y 32, and everywhere."""
    planes = np.ones((1, 3, GRID, GRID), np.float32)
    planes[0, 0, :, 6:] = -1
    planes[0, 1, 8:] = -1
    return planes


def outputs(weights=(1.0, 0.0, 0.0), index=1):
    rows = np.zeros((1, 9, CELLS), np.float32)
    rows[0, :4] = 3
    left, top, right, bottom = BOX
    for place, score in ((30, 0.9), (31, 0.8)):
        rows[0, :4, place] = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
        rows[0, 4 + index, place] = score
        rows[0, 6:, place] = weights
    return {"y": rows, "p": prototypes()}


def old_outputs(count=2):
    """Of v5: three boxes per cell, and objectness before the scores of the classes; one box is sure and no object."""
    rows = np.zeros((1, 3 * CELLS, 4 + 1 + count + 3), np.float32)
    rows[0, 200] = [24, 32, 32, 32, 0.8, *[0.9] * count, 1, 0, 0]
    rows[0, 200, 5 : 5 + count - 1] = 0.1
    rows[0, 7] = [50, 50, 9, 9, 0.0, *[1.0] * count, 1, 0, 0]
    return {"y": rows, "p": prototypes()}


def selected():
    rows = np.zeros((1, 300, 6 + 3), np.float32)
    rows[0, 0] = (*BOX, 0.9, 1, 1.0, 0.0, 0.0)
    return {"y": rows, "p": prototypes()}


def channels_last():
    found = outputs()
    return {"y": found["y"].transpose(0, 2, 1), "p": found["p"].transpose(0, 2, 3, 1)}


class TestContract(TaskContract):
    task = InstancesTask()
    examples = (TaskExample(facts(labels=NAMES), outputs(), outputs((0.0, 1.0, 0.0))),)
    foreign = (
        facts(prototypes=(1, 3, GRID, 8)),
        facts(prototypes=(1, 32, 5, 5)),
        facts(rows=(1, 6, CELLS)),
        replace(facts(), outputs=facts().outputs[:1]),
        replace(facts(), inputs=(TensorSpec("x", "float32", (1, SIZE)),)),
    )


def decoded(model, arrays, **options):
    return InstancesTask().recognize(model).configured(DecodeOptions(**options)).decode(arrays)


@pytest.mark.parametrize(
    ("model", "arrays"),
    [
        (facts(), outputs()),
        (facts((1, CELLS, 9), (1, GRID, GRID, 3)), channels_last()),
        (facts((1, 300, 9)), selected()),
        (facts((1, "n", "m")), outputs()),
    ],
)
def test_a_known_outline_is_found_in_every_layout(model, arrays):
    (found,) = decoded(model, arrays).instances
    assert (found.detection.index, found.detection.points) == (1, ())
    np.testing.assert_allclose(found.detection.box, BOX, atol=1e-4)
    left_half = np.array([(8, 16), (24, 16), (24, 48), (8, 48)])  # the box, left of x 24
    np.testing.assert_allclose(sorted(map(tuple, found.polygon)), sorted(map(tuple, left_half)), atol=0.6)
    assert area(np.asarray(found.polygon)) == pytest.approx(16 * 32, rel=0.05)


@pytest.mark.parametrize(("count", "shape"), [(2, None), (1, None), (2, (1, "n", "m"))])
def test_objectness_counts_in_v5(count, shape):
    outputs = old_outputs(count)
    (found,) = decoded(facts(shape or outputs["y"].shape), outputs).instances
    assert (found.detection.index, found.detection.box) == (count - 1, BOX)
    assert found.detection.score == pytest.approx(0.72)
    assert InstancesTask().recognize(facts(outputs["y"].shape, labels=NAMES)).labels == (
        NAMES.names if count == 2 else None
    )


def test_the_masks_are_the_insides_of_the_outlines():
    (found,) = decoded(facts(), outputs()).masks
    expected = np.zeros((SIZE, SIZE), bool)
    expected[16:48, 8:24] = True
    assert (found != expected).sum() <= 2 * 32  # the outline is between two pixels
    assert Instances(()).masks.shape == (0, 0, 0)
    moved = decoded(facts(), outputs()).in_picture(Placement((128, 256), (0.5, 0.25), (0.0, 0.0)))
    assert moved.masks.shape == (1, 256, 128)
    assert moved.masks.mean() == pytest.approx(expected.mean(), rel=0.1)


def test_supervision_gets_the_masks(monkeypatch):
    if find_spec("supervision") is None:
        monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=SimpleNamespace))
    found = decoded(facts(), outputs())
    boxes = found.to_supervision()
    np.testing.assert_allclose(boxes.xyxy, [BOX], atol=1e-3)
    np.testing.assert_array_equal(boxes.mask, found.masks)


def test_an_object_without_any_pixel_has_no_outline():
    (found,) = decoded(facts(), outputs((0.0, 0.0, -1.0))).instances
    assert found.polygon == ()
    assert decoded(facts(), outputs(), confidence=0.95).instances == ()


def test_outlines_are_mapped_and_clipped():
    found = decoded(facts(), outputs()).in_picture(Placement((60, 40), (1.0, 1.0), (0.0, 16.0)))
    places = np.asarray(found.instances[0].polygon)
    np.testing.assert_allclose(places.min(axis=0), (8, 0), atol=0.6)
    np.testing.assert_allclose(places.max(axis=0), (24, 32), atol=0.6)
    outside = decoded(facts(), outputs()).in_picture(Placement((60, 40), (1.0, 1.0), (50.0, 16.0)))
    assert outside == Instances(())


def test_the_json_is_a_detection_with_a_polygon():
    (row,) = decoded(facts(labels=NAMES), outputs()).to_json()
    assert (row["label"], row["index"], set(row)) == ("dog", 1, {"label", "index", "score", "box", "polygon"})


def test_a_segmenter_of_instances_is_neither_a_detector_nor_a_segmenter():
    assert recognize(facts())[0].id == "instances"
    assert recognize(facts(task="instances"))[0].id == "instances"


def test_labels_of_another_number_are_refused_where_they_were_given():
    given = Labels(("cat",), "names.txt", GIVEN)
    for model in (facts(), facts(rows=(1, CELLS, 4 + 2 + 3))):
        with pytest.raises(InputError, match=r"names.txt has 1 label; the model has 2 classes"):
            InstancesTask().recognize(replace(model, labels=given))
        assert InstancesTask().recognize(replace(model, labels=replace(given, certainty="read"))).labels is None


def test_outputs_of_another_layout_are_refused():
    with pytest.raises(InputError):
        decoded(facts(), {"y": np.zeros((1, 5, CELLS), np.float32), "p": prototypes()})


# ---- outlines


def test_an_outline_follows_the_edges_of_pixels():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    assert outline(mask).tolist() == [[2, 1], [5, 1], [5, 4], [2, 4]]
    mask[2, 3] = False  # a hole
    assert area(outline(mask)) == 9
    assert outline(np.zeros((3, 3), bool)).shape == (0, 2)
    assert outline(np.ones((2, 3), bool)).tolist() == [[0, 0], [3, 0], [3, 2], [0, 2]]


def test_the_largest_part_counts_and_parts_that_touch_stay_apart():
    mask = np.zeros((8, 8), bool)
    mask[1:3, 1:3] = mask[3:7, 3:7] = True  # they touch at a corner
    assert sorted(map(tuple, outline(mask).tolist())) == [(3, 3), (3, 7), (7, 3), (7, 7)]


@pytest.mark.parametrize("seed", range(5))
def test_an_outline_holds_the_pixels_of_its_part(seed):
    y, x = np.mgrid[0:40, 0:50]
    generator = np.random.default_rng(seed)
    mask = np.hypot((x - 25) / generator.uniform(5, 20), (y - 20) / generator.uniform(5, 15)) < 1
    centers = np.stack([x + 0.5, y + 0.5], axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(contains(outline(mask), centers), mask.reshape(-1))
    assert area(outline(mask)) == mask.sum()


def test_the_overlap_of_two_outlines():
    square = ((0.0, 0.0), (10.0, 0.0), (10.0, 10.0), (0.0, 10.0))
    moved = tuple((x + 5, y) for x, y in square)
    assert polygon_iou(square, square) == 1.0
    assert polygon_iou(square, moved) == pytest.approx(1 / 3, abs=0.03)
    assert polygon_iou(square, ()) == 0.0
