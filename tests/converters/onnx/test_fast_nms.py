"""Suppression of boxes across classes in ONNX, as TFLite_Detection_PostProcess does it, against numpy and LiteRT."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from converters.onnx.fast_nms import suppress_across_classes
from converters.options import ConvertOptions
from converters.tflite_to_onnx import TfliteToOnnx
from tests.real_data import real_data

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
_ROOT = Path(__file__).resolve().parents[3]
_THRESHOLD, _LEAST = 0.5, 0.1


def _model(opset):
    """NonMaxSuppression of boxes [1, 30, 4] by scores [1, 3, 30]."""
    helper, numbers = onnx.helper, onnx.numpy_helper.from_array
    constants = {"most": np.array([30]), "iou": np.float32([_THRESHOLD]), "least": np.float32([_LEAST])}
    node = helper.make_node("NonMaxSuppression", ["boxes", "scores", "most", "iou", "least"], ["rows"])
    inputs = [
        helper.make_tensor_value_info("boxes", 1, [1, 30, 4]),
        helper.make_tensor_value_info("scores", 1, [1, 3, 30]),
    ]
    output = helper.make_tensor_value_info("rows", 7, ["k", 3])
    graph = helper.make_graph(
        [node], "g", inputs, [output], [numbers(value, name) for name, value in constants.items()]
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def _rows(model, boxes, scores):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return {tuple(row) for row in session.run(None, {"boxes": boxes, "scores": scores})[0].tolist()}


def _overlap(one, other):
    top, left, bottom, right = (*np.maximum(one[:2], other[:2]), *np.minimum(one[2:], other[2:]))
    shared = max(0, bottom - top) * max(0, right - left)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared)


def _expected(boxes, scores):
    """The boxes that remain, in LiteRT's way: the best class of each, and no two that overlap."""
    best, kept = scores.max(axis=0), []
    for place in np.argsort(-best):
        if best[place] > _LEAST and all(_overlap(boxes[place], boxes[other]) <= _THRESHOLD for other in kept):
            kept.append(int(place))
    return {(0, int(scores[:, place].argmax()), place) for place in kept}


@pytest.mark.parametrize("opset", [11, 17, 18])
def test_boxes_are_suppressed_whatever_their_classes_are(opset):
    generator = np.random.default_rng(3)
    corners = generator.uniform(0, 0.6, (30, 2))
    boxes = np.concatenate([corners, corners + generator.uniform(0.2, 0.4, (30, 2))], axis=1).astype(np.float32)
    scores = generator.random((3, 30)).astype(np.float32)
    model, feeds = _model(opset), (boxes[np.newaxis], scores[np.newaxis])
    plain = _rows(model, *feeds)
    suppress_across_classes(model)
    onnx.checker.check_model(model)
    assert _rows(model, *feeds) == _expected(boxes, scores)
    assert len(plain) > len(_expected(boxes, scores))  # class by class, overlapping boxes remain


@pytest.mark.data
def test_a_detector_finds_in_onnx_what_it_finds_in_tflite(tmp_path, monkeypatch):
    """And finds other boxes if tf2onnx's suppression stays as it is."""
    pytest.importorskip("tf2onnx")
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    source = real_data("real/traffic_model.tflite")
    interpreter = litert.Interpreter(str(source))
    interpreter.allocate_tensors()
    image = pytest.importorskip("PIL.Image").open(real_data("real/traffic_0001.bmp")).resize((256, 256))
    ports = interpreter.get_input_details()
    feeds = {one["name"]: np.zeros(one["shape"], np.uint8) for one in ports}
    feeds[ports[0]["name"]] = np.asarray(image.convert("RGB"), np.uint8)[np.newaxis]
    for one in ports:
        interpreter.set_tensor(one["index"], feeds[one["name"]])
    interpreter.invoke()
    expected = [interpreter.get_tensor(one["index"]) for one in interpreter.get_output_details()[:3]]

    def found():
        path = TfliteToOnnx().convert(source, tmp_path, ConvertOptions(precision="int8"), None).model
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        real = {
            one["name"]: (feeds[one["name"]].astype(np.float32) - one["quantization"][1]) * one["quantization"][0]
            for one in ports
        }
        return path, session.run(None, {name: np.float32(values) for name, values in real.items()})[:3]

    path, answers = found()
    assert np.abs(answers[2] - expected[2]).max() < 0.05
    sure = expected[2][0] > 0.3  # the rest are close to each other, and come in any order
    assert sure.any()
    assert (answers[1][0][sure] == expected[1][0][sure]).all()
    np.testing.assert_allclose(answers[0][0][sure], expected[0][0][sure], atol=0.02)
    assert _different(answers[0]) == _different(expected[0])
    named = {one.key: one.value.split("\n") for one in onnx.load(path).metadata_props}
    names = [one["name"] for one in interpreter.get_output_details()[:3]]
    assert named["TFLite_Detection_PostProcess"][:3] == names
    monkeypatch.setattr("converters.onnx.fast_nms.suppress_across_classes", lambda _: None)
    assert _different(found()[1][0]) < _different(expected[0])  # boxes that are found in two classes


def _different(boxes):
    return len({tuple(box) for box in boxes[0].round(4).tolist()})
