"""`edge run` and `edge.open` with the heads of detectors as exporters write them, in their real sizes.

Each graph answers one object whose place in the picture is known; what edge prints has to be that object, there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

import edge
from edge.cli import main
from edge.inference.prepared_model import EngineChoice
from runtimes.errors import UsageError
from tests.edge.inference.test_detection import answering

SIDE = 640
CELLS = 80 * 80 + 40 * 40 + 20 * 20
CLASSES, INDEX = 80, 17
NAMES = [f"name {number}" for number in range(CLASSES)]
WIDTH, HEIGHT = 256, 128  # of the picture
BOX = (64.0, 16.0, 192.0, 96.0)  # left, top, right, bottom of the object in the picture
LITERAL = {"stride": "32", "names": str(dict(enumerate(NAMES)))}
DETECT = {**LITERAL, "task": "detect"}
# As a program sorts the keys of JSON: "0", "1", "10", ...
JSON_NAMES = json.dumps({str(number): NAMES[number] for number in range(CLASSES)}, sort_keys=True)


def letterboxed(points: Sequence[float]) -> np.ndarray:
    """Places in the picture, as x, y, x, y, ..., in pixels of an input that the picture is fitted into."""
    return np.float32(points) * SIDE / WIDTH + np.tile([0, (SIDE - HEIGHT * SIDE / WIDTH) / 2], len(points) // 2)


def centered(corners: np.ndarray) -> np.ndarray:
    left, top, right, bottom = corners
    return np.float32([(left + right) / 2, (top + bottom) / 2, right - left, bottom - top])


def cells(scores: Sequence[float], rest: Sequence[float] = (), count: int = CELLS, unit: float = 1.0) -> np.ndarray:
    """[count, numbers] with the object in two cells, of which the second is less sure; the others hold no object."""
    found = np.zeros((count, 4 + len(scores) + len(rest)), np.float32)
    found[:, :4] = 16 * unit
    for place, share in ((4321, 1.0), (4322, 0.9)):
        found[place] = [*(centered(letterboxed(BOX)) * unit), *(np.float32(scores) * share), *rest]
    return found


def one_hot(score: float, classes: int = CLASSES, index: int = INDEX) -> list[float]:
    return [score * (place == index) for place in range(classes)]


def selected(corners: Sequence[float], rest: Sequence[float] = (), rows: int = 300) -> np.ndarray:
    """[1, rows, numbers] of a model that selects the boxes itself; rows without a box are zeros."""
    found = np.zeros((1, rows, 6 + len(rest)), np.float32)
    found[0, 0] = [*corners, 0.75, INDEX, *rest]
    return found


def prototypes() -> np.ndarray:
    """Two planes, of which the first is 1 left of the middle of the object, and −1 right of it."""
    planes = np.ones((1, 2, SIDE // 4, SIDE // 4), np.float32)
    planes[0, 0, :, SIDE // 8 :] = -1
    return planes


@dataclass(frozen=True)
class Head:
    """A model, and what it finds beside the box.

    outputs, properties, shape, dtype, shapes: As in `answering`.
    options: Of the command.
    """

    outputs: dict[str, np.ndarray]
    properties: dict[str, str] = field(default_factory=lambda: DETECT)
    options: tuple[str, ...] = ()
    score: float = 0.75
    index: int = INDEX
    shape: tuple[int | str, ...] = (1, 3, SIDE, SIDE)
    dtype: str = "float32"
    shapes: dict[str, tuple[int | str, ...]] = field(default_factory=dict)


def v8(scores: Sequence[float] = tuple(one_hot(0.75)), unit: float = 1.0) -> dict[str, np.ndarray]:
    return {"output0": cells(scores, unit=unit).T[np.newaxis]}


def v5(classes: int = CLASSES, index: int = INDEX, rest: Sequence[float] = ()) -> np.ndarray:
    """Objectness 0.8 and a class of 0.9: the model's sigmoid is computed inside."""
    found = cells([0.8, *one_hot(0.9, classes, index)], rest, 3 * CELLS)
    found[99, 4 + 1 + index] = 1.0  # a sure class without any object
    return found[np.newaxis]


SHARES = letterboxed(BOX) / SIDE
DETR_BOX = np.float32(BOX) / [WIDTH, HEIGHT, WIDTH, HEIGHT]  # where the picture is stretched
ONE = {"stride": "32", "names": "['thing']"}
DETECTORS = {
    "v5": Head({"output0": v5()}, LITERAL, score=0.72),
    "v5, nothing known": Head({"output0": v5()}, {}, score=0.72),
    "v5, one class": Head({"output0": v5(1, 0)}, ONE, score=0.72, index=0),
    "v5, free axes": Head(
        {"output0": v5()}, DETECT, score=0.72, shape=("n", 3, SIDE, SIDE), shapes={"output0": ("n", "boxes", 85)}
    ),
    "v8": Head(v8()),
    "v8, nothing known": Head(v8(), {}),
    "v8, shares": Head(v8(unit=1 / SIDE)),
    "v8, cells first": Head({"output0": cells(one_hot(0.75))[np.newaxis]}),
    "v8, one class": Head(v8([0.75]), {**ONE, "task": "detect"}, index=0),
    "v8, one class and nothing known": Head(v8([0.75]), {}, index=0),
    "v8, names in JSON": Head(v8(), {**DETECT, "names": JSON_NAMES}),
    "v8, a list of names": Head(v8(), {**DETECT, "names": json.dumps(NAMES)}),
    "v8, free batch": Head(v8(), shape=("batch", 3, SIDE, SIDE), shapes={"output0": ("batch", 84, CELLS)}),
    "v8, batch of 2": Head({"output0": np.tile(v8()["output0"], (2, 1, 1))}, shape=(2, 3, SIDE, SIDE)),
    "v8, channels last": Head(v8(), shape=(1, SIDE, SIDE, 3)),
    "v8, bytes": Head({"output0": v8()["output0"] / 255}, dtype="uint8"),
    "v8, bytes with channels last and nothing known": Head(
        {"output0": v8()["output0"] / 255}, {}, dtype="uint8", shape=(1, SIDE, SIDE, 3)
    ),
    "end to end": Head({"output0": selected(letterboxed(BOX))}, {**DETECT, "end2end": "True"}),
    "end to end, named by the user": Head(
        {"output0": selected(letterboxed(BOX))}, LITERAL, options=("--task", "detection")
    ),
    "end to end, free rows": Head(
        {"output0": selected(letterboxed(BOX), rows=7)},
        {**DETECT, "args": "{'nms': True}"},
        shapes={"output0": (1, "boxes", 6)},
    ),
    "end to end, shares": Head({"output0": selected(SHARES)}, {**DETECT, "end2end": "True"}),
    "RT-DETR of ultralytics": Head(
        {"output0": selected(centered(np.float32(BOX) / [WIDTH, HEIGHT, WIDTH, HEIGHT]))},
        {**DETECT, "head": "RTDETRDecoder"},
    ),
}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pillow = pytest.importorskip("PIL.Image")
    place = tmp_path / "white.png"
    pillow.new("RGB", (WIDTH, HEIGHT), (255, 255, 255)).save(place)
    return place


def written(head: Head, place: Path) -> Path:
    return answering(place, head.outputs, head.properties, head.shape, head.dtype, head.shapes)


def answers(capsys, head: Head, picture: Path) -> tuple[list, str]:
    """What the command finds in the picture, and what it says beside it."""
    path = written(head, picture.with_name("model.onnx"))
    assert main(["run", str(path), str(picture), "--json", *head.options]) == 0
    printed = capsys.readouterr()
    (row,) = json.loads(printed.out)
    return row["result"], printed.err


@pytest.mark.parametrize("name", DETECTORS)
def test_the_object_is_found(name, capsys, picture):
    head = DETECTORS[name]
    (found,), said = answers(capsys, head, picture)
    assert found["index"] == head.index
    assert found["score"] == pytest.approx(head.score, abs=1e-3)
    np.testing.assert_allclose(found["box"], BOX, atol=0.1)
    is_named = "names" in head.properties
    assert found["label"] == (
        None if not is_named else "thing" if "thing" in head.properties["names"] else NAMES[INDEX]
    )
    assert ("no name" in said) is not is_named


def test_bytes_are_not_scaled_whatever_the_metadata_says(capsys, picture):
    _, said = answers(capsys, DETECTORS["v8, bytes"], picture)
    assert "the input is uint8 and cannot hold scaled pixels" in said


@pytest.mark.parametrize("side", [SIDE, "side"])
def test_a_detector_of_torchvision_takes_a_picture_without_a_batch(side, capsys, picture):
    """Its boxes are as many as it finds; the scores are those of the picture, which the model scales itself."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    boxes = np.float32([DETR_BOX * SIDE, [0, 0, 9, 9]])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["image"], ["most"], keepdims=0),
            helper.make_node("Mul", ["confidences", "most"], ["scores"]),
            helper.make_node("Identity", ["corners"], ["boxes"]),
            helper.make_node("Identity", ["numbers"], ["labels"]),
        ],
        "detector",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [3, side, side])],
        [
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["n", 4]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["n"]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, ["n"]),
        ],
        [
            numpy_helper.from_array(boxes, "corners"),
            numpy_helper.from_array(np.float32([0.75, 0.1]), "confidences"),
            numpy_helper.from_array(np.int64([INDEX + 1, 1]), "numbers"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, picture.with_name("model.onnx"))
    picture.with_name("names.txt").write_text("\n".join(["__background__", *NAMES]))
    words = ["run", str(picture.with_name("model.onnx")), str(picture), str(picture), "--json"]
    shape = [] if side == SIDE else ["--shape", f"image=3x{SIDE}x{SIDE}"]
    assert main([*words, *shape, "--labels", str(picture.with_name("names.txt"))]) == 0
    for row in json.loads(capsys.readouterr().out):
        (found,) = row["result"]
        assert (found["label"], found["index"]) == (NAMES[INDEX], INDEX)
        assert found["score"] == pytest.approx(0.75, abs=1e-3)
        np.testing.assert_allclose(found["box"], BOX, atol=0.1)


HALF = ((64, 16), (128, 16), (128, 96), (64, 96))  # the left half of the object
WEIGHTS = (1.0, 0.0)
SEGMENT = {**LITERAL, "task": "segment"}
SEGMENTERS = {
    "v8": Head({"output0": cells(one_hot(0.75), WEIGHTS).T[np.newaxis], "output1": prototypes()}, SEGMENT),
    "v5": Head({"output0": v5(rest=WEIGHTS), "output1": prototypes()}, LITERAL, score=0.72),
    "v5, nothing known": Head({"output0": v5(rest=WEIGHTS), "output1": prototypes()}, {}, score=0.72),
    "v5, one class": Head({"output0": v5(1, 0, WEIGHTS), "output1": prototypes()}, ONE, score=0.72, index=0),
    "end to end": Head(
        {"output0": selected(letterboxed(BOX), WEIGHTS), "output1": prototypes()}, {**SEGMENT, "end2end": "True"}
    ),
}


@pytest.mark.parametrize("name", SEGMENTERS)
def test_the_outline_is_found(name, capsys, picture):
    head = SEGMENTERS[name]
    (found,), _ = answers(capsys, head, picture)
    assert (found["index"], found["score"]) == (head.index, pytest.approx(head.score, abs=1e-3))
    np.testing.assert_allclose(found["box"], BOX, atol=0.1)
    np.testing.assert_allclose(sorted(map(tuple, found["polygon"])), sorted(HALF), atol=1)


def key_points(count: int, numbers: int = 3) -> tuple[np.ndarray, list[float]]:
    """Places in the picture, and the numbers that a model gives for them."""
    places = np.stack([np.linspace(70, 190, count), np.linspace(20, 90, count)], axis=1)
    rows = np.full((count, numbers), 0.9, np.float32)
    rows[:, :2] = letterboxed(places.reshape(-1)).reshape(-1, 2)
    return places, rows.reshape(-1).tolist()


def pose(count: int, numbers: int = 3, properties: dict[str, str] | None = None, *options: str) -> Head:
    array = cells([0.75], key_points(count, numbers)[1])
    return Head({"output0": array.T[np.newaxis]}, properties or {}, options)


POSE = {"stride": "32", "names": "{0: 'person'}", "task": "pose"}
POSES = {
    "17 points": (pose(17, 3, {**POSE, "kpt_shape": "[17, 3]"}), 17),
    "17 points, nothing known": (pose(17), 17),
    "5 points": (pose(5, 3, {**POSE, "kpt_shape": "[5, 3]"}), 5),
    "4 points without visibility": (pose(4, 2, {**POSE, "kpt_shape": "(4, 2)"}), 4),
    "21 points, named by the user": (pose(21, 3, None, "--task", "pose"), 21),
    "5 points, end to end": (
        Head(
            {"output0": selected(letterboxed(BOX), key_points(5)[1])},
            {**POSE, "kpt_shape": "[5, 3]", "end2end": "True"},
        ),
        5,
    ),
}


@pytest.mark.parametrize("name", POSES)
def test_the_key_points_are_found(name, capsys, picture):
    head, count = POSES[name]
    (found,), said = answers(capsys, head, picture)
    assert found["score"] == pytest.approx(0.75, abs=1e-3)
    np.testing.assert_allclose(found["box"], BOX, atol=0.1)
    places = [(one["x"], one["y"]) for one in found["keypoints"]]
    np.testing.assert_allclose(places, key_points(count)[0], atol=0.1)
    assert ("21 key points of 3 numbers" in said) is (count == 21)


def queries(index: int, count: int, no_object: bool) -> dict[str, np.ndarray]:
    """100 queries, of which one is the object."""
    logits, boxes = np.full((1, 100, count), -8, np.float32), np.full((1, 100, 4), 0.2, np.float32)
    if no_object:
        logits[..., -1] = 6
    logits[0, 42, index], boxes[0, 42] = (15 if no_object else 3), centered(DETR_BOX)
    return {"logits": logits, "pred_boxes": boxes}


@pytest.mark.parametrize(
    ("architecture", "no_object"),
    [
        ("DetrForObjectDetection", True),
        ("YolosForObjectDetection", True),
        ("RTDetrForObjectDetection", False),
        ("RTDetrV2ForObjectDetection", False),
        ("DFineForObjectDetection", False),
        ("RfDetrForObjectDetection", False),
        (None, True),
        (None, False),
    ],
)
def test_a_query_is_found_with_and_without_a_class_for_no_object(architecture, no_object, capsys, picture):
    """Beside a folder's config.json, or with the user's labels, whose number tells."""
    names, options = NAMES[:5], ("--mean", "0", "--scale", repr(1 / 255))
    if architecture is None:
        picture.with_name("names.txt").write_text("\n".join(names))
        options = (*options, "--labels", str(picture.with_name("names.txt")))
    else:
        config = {"architectures": [architecture], "id2label": {str(place): name for place, name in enumerate(names)}}
        picture.with_name("config.json").write_text(json.dumps(config))
    path = answering(
        picture.with_name("model.onnx"), queries(3, 5 + no_object, no_object), {}, ("batch", 3, SIDE, SIDE)
    )
    assert main(["run", str(path), str(picture), "--json", *options]) == 0
    (found,) = json.loads(capsys.readouterr().out)[0]["result"]
    assert (found["label"], found["index"]) == ("name 3", 3)
    assert found["score"] == pytest.approx(0.99988 if no_object else 1 / (1 + np.exp(-3)), abs=1e-3)
    np.testing.assert_allclose(found["box"], BOX, atol=0.1)


@pytest.mark.parametrize("head", [DETECTORS["v8"], SEGMENTERS["v8"], POSES["17 points"][0]])
def test_the_api_gives_what_the_command_prints_and_draws_it(head, capsys, picture):
    expected, _ = answers(capsys, head, picture)
    with edge.open(picture.with_name("model.onnx")) as model:
        found = model.predict(picture)
        arrays = model.predict(np.ones((1, 3, SIDE, SIDE), np.float32))
    assert found.to_json() == expected
    drawn = found.draw()
    assert drawn.size == (WIDTH, HEIGHT)
    assert drawn.getcolors() != [(WIDTH * HEIGHT, (255, 255, 255))]
    with pytest.raises(UsageError, match="does not come from a picture"):
        arrays.draw()


def test_the_masks_of_objects_are_in_pixels_of_the_picture(picture):
    with edge.open(written(SEGMENTERS["v8"], picture.with_name("model.onnx"))) as model:
        found = model.predict(picture)
    (mask,) = found.masks
    assert mask.shape == (HEIGHT, WIDTH)
    left_half = np.zeros_like(mask)
    left_half[16:96, 64:128] = True
    assert (mask != left_half).mean() < 0.01


def test_large_pictures_make_small_jobs(capsys, monkeypatch, picture):
    """64 of them and their outputs would be 500 MB, which no small board holds."""
    counts, whole = [], EngineChoice.run_samples

    def counted(self, artifact, inputs, *rest):
        with np.load(inputs) as arrays:
            counts.append(len(arrays["images"]))
        return whole(self, artifact, inputs, *rest)

    monkeypatch.setattr(EngineChoice, "run_samples", counted)
    path = written(DETECTORS["v8"], picture.with_name("model.onnx"))
    assert main(["run", str(path), *[str(picture)] * 12, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == sum(counts) == 12
    assert max(counts) * (3 * SIDE * SIDE + 84 * CELLS) * 4 <= 64 << 20
    assert counts[0] > 1
