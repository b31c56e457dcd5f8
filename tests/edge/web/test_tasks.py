"""Real detectors, a segmenter and a pose model on the page: what it finds is what the host finds with the same file."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("selenium", reason="selenium is not installed")
pytest.importorskip("PIL", reason="Pillow is not installed")
pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")

import edge
from edge.conversion.datasets import ConversionInputs
from tests.edge.conversion.test_task import light, lights
from tests.edge.web.page import Page
from tests.npm import need_engines

BIRD, CLASSES = 3, 21
SQUAT = (500, 610)
# Saved as files by the page: kept, to be read.
CATCH = "URL.createObjectURL = (blob) => { window.saved = blob.text(); return '#'; };"

# The map that is drawn is kept, to be read.
KEEP_MAP = """
const done = arguments[0];
import("./page/pen.js").then(({ Pen }) => {
  const { mask } = Pen.prototype;
  Pen.prototype.mask = function (map, skipped) {
    window.map = map;
    return mask.call(this, map, skipped);
  };
  done();
});
"""


@pytest.fixture(scope="module")
def artifact(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Converts a model for the browser: `artifact("real/m.tflite", precision="int8", labels=names)`."""
    need_engines()

    def convert(
        name: str, precision: str = "int8", labels: Path | None = None, calibration: Path | None = None
    ) -> Path:
        inputs = ConversionInputs(calibration=calibration, labels=labels)
        out = tmp_path_factory.mktemp("tasks") / Path(name).stem
        made = edge.convert(data / name, out, format="browser", precision=precision, inputs=inputs)
        assert made.artifact is not None
        return made.artifact

    return convert


def _answer(opened: Page, picture: Path) -> dict[str, Any]:
    """Give the page a picture, and return what it saves of its answer."""
    assert opened.state == "passed", opened.text("main")
    opened.driver.execute_script("document.getElementById('picture-note').textContent = ''")
    opened.find("#file").send_keys(str(picture))
    opened.until(lambda: "answered in" in opened.text("#picture-note"))
    opened.find("#save-answer").click()
    (row,) = json.loads(opened.driver.execute_async_script("window.saved.then(arguments[0])"))
    assert row["input"] == picture.name
    return dict(row)


def _is_drawn(opened: Page) -> bool:
    """Whether the canvas over the picture holds anything."""
    ask = """
        const drawn = document.getElementById("drawn");
        return drawn.getContext("2d").getImageData(0, 0, drawn.width, drawn.height).data.some(Boolean);
    """
    return bool(opened.driver.execute_script(ask))


def _assert_same_boxes(found: Any, wanted: Any, *, pixels: float, score: float) -> None:
    assert [(one["label"], one["index"]) for one in found] == [(one["label"], one["index"]) for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert one.keys() == other.keys()
        assert one["score"] == pytest.approx(other["score"], abs=score)
        np.testing.assert_allclose(one["box"], other["box"], atol=pixels)
        np.testing.assert_allclose(one.get("points", []), other.get("points", []), atol=pixels)


def test_key_points_lie_where_host_and_reference_have_them(page, serve, artifact, data) -> None:
    made, picture = artifact("real/movenet_single_pose_lightning_ptq.tflite"), data / "real" / "squat.bmp"
    opened = page(serve(made), CATCH)
    row = _answer(opened, picture)
    (expected,) = edge.run(made, [picture])
    assert (row["task"], row["runtime"]) == ("pose", "litert_js")
    (pose,), (wanted,) = row["result"], expected.result.to_json()
    assert [one["name"] for one in pose["keypoints"]] == [one["name"] for one in wanted["keypoints"]]
    places = np.array([[one["x"], one["y"], one["score"]] for one in pose["keypoints"]])
    np.testing.assert_allclose(places, [[one["x"], one["y"], one["score"]] for one in wanted["keypoints"]], atol=1e-3)
    np.testing.assert_allclose(pose["box"], wanted["box"], atol=1e-3)
    with (data / "real/movenet_single_pose_lightning_ptq_reference.csv").open(encoding="utf-8") as lines:
        reference = [(float(one["keypoint_x"]), float(one["keypoint_y"])) for one in csv.DictReader(lines)]
    assert np.abs(places[:, :2] / SQUAT - np.array(reference)).max() < 0.04
    assert _is_drawn(opened)
    assert opened.text("#result").startswith("person")
    assert opened.find("#seen").accessible_name.startswith("The picture: a person, ")
    assert opened.complaints() == []


def test_the_bird_is_where_host_and_mask_have_it(page, serve, artifact, data, tmp_path) -> None:
    names = (data / "real/pascal_voc_segmentation_labels.txt").read_text(encoding="utf-8").splitlines()[:CLASSES]
    (tmp_path / "names.txt").write_text("\n".join(names))
    picture, pictures = data / "real" / "bird_segmentation.bmp", tmp_path / "pictures"
    pictures.mkdir()
    for path in (picture, *sorted((data / "imagenet" / "calibration").iterdir())[:11]):
        shutil.copy(path, pictures)
    model = "edgetpu/deeplabv3_mnv2_dm05_pascal_quant.tflite"
    made = artifact(model, labels=tmp_path / "names.txt", calibration=pictures)
    opened = page(serve(made), CATCH)
    opened.driver.execute_async_script(KEEP_MAP)
    row = _answer(opened, picture)
    (expected,) = edge.run(made, [picture])
    assert row["result"] == expected.result.to_json()
    found = np.array(opened.driver.execute_script("return [...map.classes]")).reshape(row["result"]["size"])
    assert np.array_equal(found, expected.result.classes)
    from PIL import Image

    with Image.open(data / "real" / "bird_segmentation_mask.bmp") as mask:
        wanted = np.asarray(mask) == BIRD
    bird = found == BIRD
    assert (bird & wanted).sum() / (bird | wanted).sum() >= 0.8
    assert _is_drawn(opened)
    lines = opened.text("#result").splitlines()
    assert lines[::2] == [one["label"] for one in row["result"]["classes"]]
    assert opened.complaints() == []


@pytest.mark.parametrize(("precision", "engine"), [("fp16", "litert_js"), ("fp32", "ort_web")])
def test_both_faces_are_where_the_host_has_them(precision, engine, page, serve, artifact, data) -> None:
    made, picture = artifact("real/face_detection_short_range.tflite", precision), data / "real" / "face.jpg"
    opened = page(serve(made), CATCH)
    row = _answer(opened, picture)
    (expected,) = edge.run(made, [picture])
    assert (row["task"], row["runtime"]) == ("detection", engine)
    _assert_same_boxes(row["result"], expected.result.to_json(), pixels=0.1, score=1e-3)
    assert [round(one["score"], 2) for one in row["result"]] == [0.97, 0.88]
    assert _is_drawn(opened)
    assert opened.find("#seen").accessible_name == "The picture: 2 × class 0"
    assert opened.complaints() == []


def test_a_light_is_found_in_a_picture_with_borders(page, serve, tmp_path) -> None:
    need_engines()
    model, picture = lights(tmp_path), light(tmp_path)
    made = edge.convert(model, tmp_path / "made", format="browser", precision="fp32").artifact
    opened = page(serve(made), CATCH)
    row = _answer(opened, picture)
    (expected,) = edge.run(made, [picture])
    _assert_same_boxes(row["result"], expected.result.to_json(), pixels=1e-3, score=1e-5)
    np.testing.assert_allclose(row["result"][0]["box"], [32, 16, 48, 32], atol=0.1)
    assert row["result"][0]["label"] == "light"
    assert opened.find("#seen").accessible_name == "The picture: 2 × light"
    assert "fitted into 64 × 64" in opened.text("#rule")


def _outlined(folder: Path) -> Path:
    """Write the detector of lights with prototypes of masks: where the picture is bright, which outlines a light."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(lights(folder))
    graph = model.graph
    count = graph.output[0].type.tensor_type.shape.dim[2].dim_value
    del graph.node[-1], graph.output[:]
    graph.node.extend(
        [
            helper.make_node("Concat", ["boxes", "scores", "weights"], ["output0"], axis=1),
            helper.make_node("AveragePool", ["gray"], ["places"], kernel_shape=[4, 4], strides=[4, 4]),
            helper.make_node("Sub", ["places", "half"], ["bright"]),
            helper.make_node("Concat", ["bright", "bright"], ["output1"], axis=1),
        ]
    )
    weights = np.stack([np.ones(count), np.zeros(count)])[np.newaxis].astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(weights, "weights"))
    graph.initializer.append(numpy_helper.from_array(np.float32(0.5), "half"))
    shapes = {"output0": [1, 7, count], "output1": [1, 2, 16, 16]}
    graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, shapes[name]) for name in shapes)
    helper.set_model_props(model, {**{prop.key: prop.value for prop in model.metadata_props}, "task": "segment"})
    onnx.save(model, folder / "outlined.onnx")
    return folder / "outlined.onnx"


def test_the_outline_of_a_light_is_that_of_the_host(page, serve, tmp_path) -> None:
    need_engines()
    model, picture = _outlined(tmp_path), light(tmp_path)
    made = edge.convert(model, tmp_path / "made", format="browser", precision="fp32").artifact
    opened = page(serve(made), CATCH)
    row = _answer(opened, picture)
    (expected,) = edge.run(made, [picture])
    wanted = expected.result.to_json()
    assert row["task"] == "instances"
    _assert_same_boxes(row["result"], wanted, pixels=1e-3, score=1e-5)
    for one, other in zip(row["result"], wanted, strict=True):
        np.testing.assert_allclose(one["polygon"], other["polygon"], atol=1e-3)
    corners = np.array(row["result"][0]["polygon"])
    np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], [32, 16, 48, 32], atol=2)
    assert _is_drawn(opened)
    assert opened.find("#seen").accessible_name == "The picture: 2 × light"


def test_a_detector_with_its_post_processing_inside_finds_what_the_host_finds(page, serve, artifact, data) -> None:
    made, picture = artifact("real/traffic_model.tflite"), data / "real" / "traffic_0001.bmp"
    opened = page(serve(made), CATCH)
    row = _answer(opened, picture)
    (expected,) = edge.run(made, [picture])
    wanted = expected.result.to_json()
    assert (row["task"], row["runtime"], bool(wanted)) == ("detection", "litert_js", True)
    _assert_same_boxes(row["result"], wanted, pixels=0.1, score=1e-3)
    assert opened.complaints() == []


def test_a_page_that_swaps_x_and_y_is_seen(page, serve, artifact, data, changed) -> None:
    made, picture = artifact("real/face_detection_short_range.tflite", "fp16"), data / "real" / "face.jpg"
    module = (made / "page/decoders/boxes.js").read_text()
    right = "[fround(x - across), fround(y - down), fround(x + across), fround(y + down)]"
    assert right in module
    swapped = module.replace(right, "[fround(y - down), fround(x - across), fround(y + down), fround(x + across)]")
    row = _answer(page(serve(changed(made, {"page/decoders/boxes.js": swapped.encode()})), CATCH), picture)
    (expected,) = edge.run(made, [picture])
    with pytest.raises(AssertionError):
        _assert_same_boxes(row["result"], expected.result.to_json(), pixels=0.1, score=1e-3)


def test_on_a_phone_everything_fits_and_can_be_read(browser, until, serve, artifact, data) -> None:
    made = artifact("real/movenet_single_pose_lightning_ptq.tflite")
    opened = Page(browser(360, 740, touch=True), until, serve(made), CATCH)
    _answer(opened, data / "real" / "squat.bmp")
    assert opened.driver.execute_script("return document.documentElement.scrollWidth") <= 360
    frame, drawn = opened.find("#frame").rect, opened.find("#drawn").rect
    assert (frame["width"], frame["height"]) == (drawn["width"], drawn["height"])
    assert frame["width"] / frame["height"] == pytest.approx(SQUAT[0] / SQUAT[1], abs=0.01)
    opened.find("#result summary").click()
    assert opened.text("#result").count("\n") >= 17
    assert "left knee: x " in opened.text("#result")
