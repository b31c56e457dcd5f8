"""Detectors of each layout: recognized by metadata, operators and shapes, and decoded to known boxes."""

from __future__ import annotations

import sys
from dataclasses import replace
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from runtimes.artifact.manifest import Quantization, TensorSpec
from runtimes.decoders.detr import Queries
from runtimes.decoders.ssd import AnchoredBoxes, DetectionOutputRows, PostProcessedSsd, SelectedBoxes
from runtimes.decoders.yolo import YoloCells, YoloRows
from runtimes.errors import EngineMissingError, InputError, UsageError
from runtimes.model_files.facts import GIVEN, TASK_OPTION, Labels, ModelFacts, Producer
from runtimes.task import DecodeOptions, Placement
from runtimes.tasks import recognize
from runtimes.tasks.detection import Detection, Detections, DetectionTask
from runtimes.testing.task_contract import TaskContract, TaskExample

SIZE = 64
NAMES = Labels(("cat", "dog", "bird"), "the file")
BOX, OTHER = (8.0, 16.0, 40.0, 48.0), (30.0, 10.0, 60.0, 34.0)  # left, top, right, bottom
CELLS = 8 * 8 + 4 * 4 + 2 * 2


def facts(*outputs, **known):
    picture = TensorSpec("x", "float32", (1, 3, SIZE, SIZE))
    specs = tuple(
        TensorSpec(f"y{i}", "float32", one) if isinstance(one, tuple) else one for i, one in enumerate(outputs)
    )
    return ModelFacts("model.onnx", "onnx", inputs=(picture,), outputs=specs, **known)


def centered(box):
    left, top, right, bottom = box
    return [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]


def cells(box=BOX, index=1, score=0.9, unit=1.0):
    """[1, 4 + classes, cells] with one box, which three neighboring cells give."""
    array = np.zeros((1, 4 + 3, CELLS), np.float32)
    array[0, :4] = np.float32([[3, 3, 2, 2]]).T * unit
    for place, weaker in ((20, 0.0), (21, 0.1), (28, 0.2)):
        array[0, :4, place] = np.float32(centered(box)) * unit
        array[0, 4 + index, place] = score - weaker
    return array


def old_cells(box=BOX, index=1):
    """[1, 3 × cells, 5 + classes]: objectness, then classes given an object."""
    array = np.zeros((1, 3 * CELLS, 5 + 3), np.float32)
    array[0, 100, :4], array[0, 100, 4] = centered(box), 0.8
    array[0, 100, 5 + index] = 0.5
    array[0, 7, :4], array[0, 7, 5 + index] = centered(OTHER), 1.0  # no object: objectness 0
    return array


def rows(box=BOX, index=1, unit=1.0, centers=False):
    array = np.zeros((1, 300, 6), np.float32)
    array[0, 0, :4] = np.float32(centered(box) if centers else box) * unit
    array[0, 0, 4:] = 0.75, index
    return array


def post_processed(box=BOX, index=1):
    left, top, right, bottom = (value / SIZE for value in box)
    boxes, classes, scores = (
        np.zeros((1, 10, 4), np.float32),
        np.zeros((1, 10), np.float32),
        np.zeros((1, 10), np.float32),
    )
    boxes[0, 0], classes[0, 0], scores[0, 0] = (top, left, bottom, right), index, 0.7
    return {"y0": boxes, "y1": classes, "y2": scores, "y3": np.float32([10])}


def output_rows(box=BOX, index=1):
    array = np.zeros((1, 1, 20, 7), np.float32)
    array[0, 0, 0] = 0, index + 1, 0.7, *(value / SIZE for value in box)
    array[0, 0, 1] = -1, 0, 0, 0, 0, 0, 0
    array[0, 0, 2] = 0, 1, 0.99, *(value / SIZE for value in OTHER)  # after the end of the list
    return {"y0": array}


def chosen(box=BOX, index=1, unit=1.0):
    """Boxes, classes and scores of TorchVision's detectors, in another order."""
    boxes = np.float32([box, OTHER]) * unit
    return {"scores": np.float32([0.7, 0.1]), "labels": np.int64([index, 2]), "boxes": boxes}


CHOSEN = (
    TensorSpec("scores", "float32", ("n",)),
    TensorSpec("labels", "int64", ("n",)),
    TensorSpec("boxes", "float32", ("n", 4)),
)


def queries(box=BOX, index=1, no_object=True):
    boxes, logits = np.full((1, 5, 4), 0.1, np.float32), np.full((1, 5, 3 + no_object), -6, np.float32)
    if no_object:
        logits[0, :, -1] = 6
    boxes[0, 2], logits[0, 2, index] = np.float32(centered(box)) / SIZE, 12
    return {"logits": logits, "pred_boxes": boxes}


QUERIES = (TensorSpec("logits", "float32", (1, 5, 4)), TensorSpec("pred_boxes", "float32", (1, 5, 4)))
SSD = {"producers": tuple(Producer("TFLite_Detection_PostProcess", i) for i in range(4))}

CONVERTED_SSD = {"TFLite_Detection_PostProcess": "y0\ny1\ny2\ny3"}


def anchored(box=BOX, side=128):
    """Raw boxes of BlazeFace for 128 × 128: anchor 100 is at row 3, column 2 of the first grid, twice in each cell."""
    raw, scores = np.zeros((1, 896, 16), np.float32), np.full((1, 896, 1), -9, np.float32)
    x, y, width, height = centered(box)
    place = (3 * 16 + 2) * 2
    raw[0, place, :6] = x - 20, y - 28, width, height, 1, 2  # the first key point right and below of the anchor
    raw[0, place + 1] = raw[0, place]
    raw[0, place + 1, 0] += 2
    scores[0, place : place + 2, 0] = 3.0
    return {"y0": raw, "y1": scores}


BLAZE = replace(facts((1, 896, 16), (1, 896, 1)), inputs=(TensorSpec("x", "float32", (1, 128, 128, 3)),))


class TestContract(TaskContract):
    task = DetectionTask()
    examples = (
        TaskExample(facts((1, 7, CELLS), labels=NAMES), {"y0": cells()}, {"y0": cells(OTHER)}),
        TaskExample(facts((1, CELLS, 7)), {"y0": cells().transpose(0, 2, 1)}, {"y0": cells(BOX, 2).transpose(0, 2, 1)}),
        TaskExample(facts((1, 3 * CELLS, 8)), {"y0": old_cells()}, {"y0": old_cells(OTHER)}),
        TaskExample(facts((1, 300, 6), operators={"TopK": 1}), {"y0": rows()}, {"y0": rows(OTHER)}),
        TaskExample(facts((), (), (), (), **SSD), post_processed(), post_processed(OTHER)),
        TaskExample(
            facts((1, 1, 20, 7), producers=(Producer("DetectionOutput"),)), output_rows(), output_rows(index=2)
        ),
        TaskExample(facts(*CHOSEN), chosen(), chosen(OTHER)),
        TaskExample(facts(*QUERIES), queries(), queries(OTHER)),
        TaskExample(BLAZE, anchored((20.0, 20.0, 40.0, 44.0)), anchored((2.0, 2.0, 20.0, 30.0))),
    )
    foreign = (
        facts((1, 1000)),
        facts((1, 21, SIZE, SIZE)),
        facts((1, 7, CELLS - 1)),
        replace(facts((1, 8400, 85)), inputs=(TensorSpec("x", "float32", (1, 3, 640, 640)),)),  # YOLOX
        facts((1, 7, CELLS), (1, 32, 16, 16)),
        facts((1, 300, 6)),
        facts((1, 5, 4), (1, 5, 4)),
        facts(QUERIES[0], TensorSpec("boxes", "float32", (1, 1917, 4))),
        facts(CHOSEN[0], CHOSEN[0], CHOSEN[2]),
        facts(*CHOSEN[:2], TensorSpec("boxes", "float32", ("n", 5))),
        facts((1, 896, 16), (1, 896, 1)),
        replace(facts((1, 7, CELLS)), inputs=(TensorSpec("x", "float32", (1, SIZE)),)),
    )


def decoded(model, outputs, **options):
    decoder = DetectionTask().recognize(model)
    assert decoder is not None
    return decoder.configured(DecodeOptions(**options)).decode(outputs).boxes


# ---- known boxes, in every layout


# Outputs whose order says nothing: their names do.
SHUFFLED = ("detection_boxes:0", "detection_classes", "detection_scores")


@pytest.mark.parametrize(
    ("kind", "model", "outputs", "score"),
    [
        (YoloCells, facts((1, 7, CELLS)), {"y0": cells()}, 0.9),
        (YoloCells, facts((1, 7, CELLS)), {"y0": cells(unit=1 / SIZE)}, 0.9),
        (YoloCells, facts((1, CELLS, 7)), {"y0": cells().transpose(0, 2, 1)}, 0.9),
        (YoloCells, facts((1, 3 * CELLS, 8)), {"y0": old_cells()}, 0.4),
        (YoloCells, facts(("n", "c", "d"), labels=NAMES, task="detection"), {"y0": cells()}, 0.9),
        (YoloCells, facts(("n", "c", "d"), labels=NAMES, task="detection"), {"y0": old_cells()}, 0.4),
        (YoloRows, facts((1, 300, 6), operators={"NonMaxSuppression": 1}), {"y0": rows()}, 0.75),
        (YoloRows, facts((1, 300, 6), operators={"TOPK_V2": 1}), {"y0": rows(unit=1 / SIZE)}, 0.75),
        (YoloRows, facts((1, 300, 6), task="detection"), {"y0": rows()}, 0.75),
        (YoloRows, facts((1, "n", 6), metadata={"args": "{'nms': True}"}), {"y0": rows()}, 0.75),
        (
            YoloRows,
            facts((1, 300, 6), operators={"TopK": 1}, metadata={"head": "RTDETRDecoder"}),
            {"y0": rows(unit=1 / SIZE, centers=True)},
            0.75,
        ),
        (PostProcessedSsd, facts((), (), (), (), **SSD), post_processed(), 0.7),
        (PostProcessedSsd, facts((), (), (), (), metadata=CONVERTED_SSD), post_processed(), 0.7),
        (
            PostProcessedSsd,
            facts(
                TensorSpec("detection_scores", "float32", (1, 10)),
                TensorSpec("detection_boxes:0", "float32", (1, 10, 4)),
                TensorSpec("detection_classes", "float32", (1, 10)),
            ),
            dict(zip(SHUFFLED, post_processed(index=2).values())),
            0.7,
        ),
        (DetectionOutputRows, facts((1, 1, 20, 7), producers=(Producer("DetectionOutput"),)), output_rows(), 0.7),
        (SelectedBoxes, facts(*CHOSEN), chosen(), 0.7),
        (SelectedBoxes, facts(*CHOSEN, labels=NAMES), chosen(unit=1 / SIZE), 0.7),
        (Queries, facts(*QUERIES), queries(), 0.9975),
        (Queries, facts(*QUERIES, task="detection"), queries(), 0.9975),
    ],
)
def test_a_known_box_is_found_in_every_layout(kind, model, outputs, score):
    assert isinstance(DetectionTask().recognize(model), kind)
    (found,) = decoded(model, outputs)
    assert found.index == 1
    assert found.score == pytest.approx(score, abs=1e-3)
    np.testing.assert_allclose(found.box, BOX, atol=1e-3)


def test_a_sigmoid_per_class_is_distinguished_from_a_class_for_no_object():
    model = facts(TensorSpec("logits", "float32", (1, 5, 3)), QUERIES[1], labels=NAMES)
    (found,) = decoded(model, queries(no_object=False))
    assert (found.index, found.label) == (1, "dog")
    stated = facts(*QUERIES, metadata={"architecture": "RTDetrV2ForObjectDetection"})
    assert not DetectionTask().recognize(stated).has_no_object
    assert (
        DetectionTask().recognize(facts(*QUERIES, metadata={"architecture": "YolosForObjectDetection"})).has_no_object
    )


@pytest.mark.parametrize(("operator", "no_object"), [("Softmax", True), ("LOGISTIC", False)])
def test_probabilities_that_the_model_computes_are_taken_as_they_are(operator, no_object):
    outputs = queries(no_object=no_object)
    powers = np.exp(outputs["logits"])
    outputs["logits"] = powers / powers.sum(axis=-1, keepdims=True) if no_object else powers / (1 + powers)
    specs = TensorSpec("logits", "float32", (1, 5, 3 + no_object)), QUERIES[1]
    (found,) = decoded(facts(*specs, producers=(Producer(operator), None)), outputs)
    assert found.index == 1
    assert found.score == pytest.approx(outputs["logits"][0, 2, 1])


def test_faces_are_merged_by_their_weights():
    (found,) = decoded(BLAZE, anchored((20.0, 20.0, 40.0, 44.0)))
    assert isinstance(DetectionTask().recognize(BLAZE), AnchoredBoxes)
    np.testing.assert_allclose(found.box, (21.0, 20.0, 41.0, 44.0), atol=1e-4)  # the mean of two, 2 pixels apart
    np.testing.assert_allclose(found.points[0], (21.0, 30.0), atol=1e-4)
    assert found.score == pytest.approx(1 / (1 + np.exp(-3)), abs=1e-6)


def test_rt_detr_without_metadata_is_recognized_by_its_values():
    array = rows(unit=1 / SIZE, centers=True)
    array[0, 1, :4] = 0.9, 0.9, 0.1, 0.1  # as corners it would be turned inside out
    found = decoded(facts((1, 300, 6), operators={"TopK": 1}), {"y0": array})
    np.testing.assert_allclose(found[0].box, BOX, atol=1e-3)


def test_quantized_outputs_are_dequantized():
    spec = TensorSpec("y0", "uint8", (1, 7, CELLS), Quantization((0.5,), (10,)))
    array = cells(score=1.0)
    stored = np.round(array / 0.5 + 10).astype(np.uint8)
    (found,) = decoded(facts(spec), {"y0": stored})
    np.testing.assert_allclose(found.box, BOX, atol=0.5)


# ---- suppression and limits


def test_boxes_are_suppressed_per_class():
    array = cells()
    array[0, :4, 60], array[0, 4:, 60] = centered(BOX), (0.8, 0, 0)  # the same place, another class
    array[0, :4, 61], array[0, 4:, 61] = centered(OTHER), (0, 0.7, 0)
    found = decoded(facts((1, 7, CELLS)), {"y0": array})
    assert [(one.index, round(one.score, 2)) for one in found] == [(1, 0.9), (0, 0.8), (1, 0.7)]
    assert len(decoded(facts((1, 7, CELLS)), {"y0": array}, confidence=0.85)) == 1
    assert len(decoded(facts((1, 7, CELLS)), {"y0": array}, iou=1.0)) == 5


def test_nothing_is_a_result_too():
    assert decoded(facts((1, 7, CELLS)), {"y0": cells(score=0.0)}) == ()
    assert Detections(()).to_json() == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value):
    array = cells()
    array[0, 0, 0] = value
    with pytest.raises(InputError, match="NaN or infinity"):
        decoded(facts((1, 7, CELLS)), {"y0": array})


def test_two_inputs_at_once_are_refused():
    with pytest.raises(InputError, match="one input"):
        decoded(facts((1, 7, CELLS)), {"y0": np.concatenate([cells(), cells()])})


def test_labels_that_do_not_fit_are_refused_where_they_were_given():
    given = Labels(("a", "b", "c", "d", "e"), "names.txt", GIVEN)
    with pytest.raises(InputError, match=r"names.txt has 5 labels; the model has 3 classes"):
        DetectionTask().recognize(facts((1, 7, CELLS), labels=given))
    read = replace(given, certainty="read")
    assert DetectionTask().recognize(facts((1, 7, CELLS), labels=read)).labels is None


FIVE = Labels(("a", "b", "c", "d", "e"), "names.txt", GIVEN)


@pytest.mark.parametrize(
    ("model", "classes"),
    [
        (facts((), (), (), (), producers=(Producer("TFLite_Detection_PostProcess", 0, 3), *SSD["producers"][1:])), 3),
        (facts((1, 1, 20, 7), producers=(Producer("DetectionOutput", 0, 2),)), 2),
        (facts(*QUERIES), 3),
        (BLAZE, 1),
    ],
    ids=["ssd", "openvino", "detr", "blaze"],
)
def test_labels_of_another_number_than_the_model_shows_are_refused(model, classes):
    with pytest.raises(InputError, match=f"names.txt has 5 labels; the model has {classes} class"):
        DetectionTask().recognize(replace(model, labels=FIVE))
    found = DetectionTask().recognize(replace(model, labels=replace(FIVE, names=FIVE.names[:classes])))
    assert found is not None
    assert found.labels == FIVE.names[:classes]
    assert DetectionTask().recognize(replace(model, labels=replace(FIVE, certainty="read"))).labels is None


def test_what_follows_an_empty_line_after_the_last_label_is_a_remark():
    labels = replace(FIVE, names=("a", "b", "c", "", "255 marks pixels that are not judged"))
    assert DetectionTask().recognize(facts((1, 7, CELLS), labels=labels)).labels == ("a", "b", "c")


def test_a_class_beyond_the_labels_is_an_error_where_only_the_boxes_show_it():
    model = facts((1, 300, 6), operators={"TopK": 1}, labels=replace(FIVE, names=("a", "b")))
    assert decoded(model, {"y0": rows(index=1)})[0].label == "b"
    with pytest.raises(InputError, match="the model found class 7, counted from 0, and has 2 labels"):
        decoded(model, {"y0": rows(index=7)})


def test_a_background_among_the_names_is_no_class_of_an_ssd():
    labels = Labels(("???", "person", "bicycle"), "the file")
    (found,) = decoded(facts((), (), (), (), labels=labels, **SSD), post_processed())
    assert found.label == "bicycle"


@pytest.mark.parametrize(
    ("known", "found"),
    [
        ({}, (1, None)),
        ({"labels": NAMES}, (1, "dog")),
        ({"labels": replace(NAMES, names=("__background__", *NAMES.names))}, (0, "cat")),
        ({"label_offset": 1}, (0, None)),
    ],
)
def test_the_background_of_torchvision_is_no_class(known, found):
    (box,) = decoded(facts(*CHOSEN, **known), chosen())
    assert (box.index, box.label) == found


def test_a_named_task_is_the_only_one_tried():
    model = facts((1, 7, CELLS - 1))
    assert recognize(model)[0].id == "tensors"
    assert recognize(replace(model, task="detection"))[0].id == "detection"
    with pytest.raises(UsageError, match="cannot decode these outputs as detection"):
        recognize(replace(facts((1, 4)), task="detection", origins={"task": TASK_OPTION}))
    assert recognize(replace(facts((1, 8, CELLS)), task="oriented_boxes"))[0].id == "tensors"


# ---- places, and the comparison of results


def test_boxes_are_mapped_back_through_a_letterbox_and_clipped():
    placement = Placement((200, 100), (0.32, 0.32), (0.0, 16.0))
    found = Detections((Detection(0, None, 1.0, (0.0, 16.0, 32.0, 80.0), ((16.0, 32.0),)),)).in_picture(placement)
    np.testing.assert_allclose(found.boxes[0].box, (0, 0, 100, 100))
    np.testing.assert_allclose(found.boxes[0].points, [(50, 50)])
    outside = Detections((Detection(0, None, 1.0, (0.0, 0.0, 64.0, 15.0)),))
    assert outside.in_picture(placement).boxes == ()


@pytest.mark.parametrize(
    ("changed", "agrees"),
    [
        (Detection(0, None, 0.9, (10.0, 10.0, 50.0, 51.0)), True),
        (Detection(0, None, 0.7, (10.0, 10.0, 50.0, 50.0)), False),
        (Detection(1, None, 0.9, (10.0, 10.0, 50.0, 50.0)), False),
        (Detection(0, None, 0.9, (10.0, 10.0, 50.0, 34.0)), False),
    ],
)
def test_results_agree_by_class_place_and_confidence(changed, agrees):
    one = Detections((Detection(0, None, 0.9, (10.0, 10.0, 50.0, 50.0)),))
    agreement = DetectionTask().compare(one, Detections((changed,)))
    assert agreement.agrees is agrees
    assert agreement.metrics["matched"] == float(changed.index == 0)


def test_a_box_that_only_just_counts_may_be_missing():
    sure, unsure = Detection(0, None, 0.9, (10.0, 10.0, 50.0, 50.0)), Detection(0, None, 0.26, (0.0, 0.0, 9.0, 9.0))
    assert DetectionTask().compare(Detections((sure, unsure)), Detections((sure,))).agrees
    assert not DetectionTask().compare(Detections((sure, unsure)), Detections((unsure,))).agrees


FOUND = Detections((Detection(1, "dog", 0.9, BOX), Detection(7, None, 0.5, OTHER)))


def test_a_box_without_an_area_agrees_with_itself():
    flat = Detection(0, None, 0.9, (4.0, 4.0, 4.0, 8.0))
    assert DetectionTask().compare(Detections((flat,)), Detections((flat,))).agrees
    assert (
        not DetectionTask().compare(Detections((flat,)), Detections((replace(flat, box=(9.0, 4.0, 9.0, 8.0)),))).agrees
    )


def test_without_the_library_its_absence_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)  # importing it fails
    with pytest.raises(EngineMissingError) as caught:
        FOUND.to_supervision()
    assert caught.value.hint == "pip install supervision"


@pytest.mark.parametrize("found", [FOUND, Detections(())])
def test_boxes_become_those_of_supervision(monkeypatch, found):
    """With the library where it is installed, else with a class of its constructor's form."""

    class Form:
        def __init__(self, xyxy, confidence, class_id, data):
            self.xyxy, self.confidence, self.class_id, self.data = xyxy, confidence, class_id, data

    if find_spec("supervision") is None:
        monkeypatch.setitem(sys.modules, "supervision", SimpleNamespace(Detections=Form))
    boxes = found.to_supervision()
    assert boxes.xyxy.tolist() == [list(one.box) for one in found.boxes]
    np.testing.assert_allclose(boxes.confidence, [one.score for one in found.boxes])
    assert boxes.class_id.tolist() == [one.index for one in found.boxes]
    assert boxes.data["class_name"].tolist() == ["dog", "class 7"][: len(found.boxes)]


def test_a_label_too_few_is_no_objectness():
    two = Labels(("cat", "dog"), "two.txt", GIVEN)
    model = facts((1, 4 + 3, CELLS), task="detection", labels=two)
    with pytest.raises(InputError, match=r"two\.txt has 2 labels; the model has 3 classes"):
        DetectionTask().recognize(model)
    # Where the user alone says that it detects, it may be YOLOX, whose objectness is a number more.
    assert DetectionTask().recognize(replace(model, origins={"task": TASK_OPTION})) is None
