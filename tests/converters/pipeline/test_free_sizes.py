"""Free sizes stay free and are proven at several sizes, or are fixed by `--shape`.

The judge is numpy, at a size that no proof used.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from converters.options import ConvertOptions
from converters.pipeline.convert import convert
from converters.pipeline.request import ConvertRequest
from runtimes.artifact import Artifact
from runtimes.errors import InputError, ProofError, UsageError
from runtimes.registry import open_session

WEIGHTS = np.random.default_rng(2).standard_normal((3, 5)).astype(np.float32)
PIXELS = {"picture": ["batch", 3, "height", "width"]}
STEPS = {"onnx": ("onnx_to_onnx", "fp16"), "openvino": ("onnx_to_openvino", "fp32")}


def write(path, only_at=None, imgsz="", axes=PIXELS["picture"]):
    """The mean of tanh over a picture of any size, times weights; `only_at` divides by these many pixels instead."""
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    node, array = helper.make_node, onnx.numpy_helper.from_array
    mean = [node("ReduceMean", ["t"], ["m"], axes=[2, 3], keepdims=0)]
    if only_at:
        mean = [node("ReduceSum", ["t", "axes"], ["s"], keepdims=0), node("Div", ["s", "count"], ["m"])]
    graph = helper.make_graph(
        [node("Tanh", ["picture"], ["t"]), *mean, node("MatMul", ["m", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("picture", kind, axes)],
        [helper.make_tensor_value_info("y", kind, ["batch", 5])],
        [
            array(WEIGHTS, "w"),
            array(np.float32(only_at or 1), "count"),
            array(np.array([2, 3]), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    if imgsz:
        helper.set_model_props(model, {"imgsz": imgsz})
    path.write_bytes(model.SerializeToString(deterministic=True))
    return path


def expected(picture):
    return np.tanh(picture).mean(axis=(2, 3)) @ WEIGHTS


@pytest.fixture
def request_for(tmp_path):
    def make(source, target="onnx", shapes=(), **changes):
        step, precision = STEPS[target]
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        request = ConvertRequest(
            source=source,
            steps=(step,),
            format=target,
            options=ConvertOptions(precision=precision, shapes=shapes),
            out=out,
            scratch=tmp_path / "scratch",
        )
        return replace(request, **changes)

    return make


def judged(folder, *shapes):
    with open_session(Artifact.open(folder)) as session:
        for shape in shapes:
            picture = np.random.default_rng(9).standard_normal(shape).astype(np.float32)
            answer = session.run({"picture": picture})["y"]
            assert np.allclose(answer, expected(picture), rtol=0, atol=0.01)
        return session.inputs[0].shape


@pytest.mark.parametrize("target", STEPS)
def test_free_sizes_stay_free_and_are_proven_at_two(target, request_for, tmp_path):
    pytest.importorskip("onnxruntime" if target == "onnx" else "openvino")
    request = request_for(write(tmp_path / "free.onnx"), target)
    result = convert(request, lambda _: None)
    assert result.proof["sizes"][:2] == ["picture=1x3x64x96", "picture=1x3x128x160"]
    assert len(result.proof["sizes"]) == (3 if target == "onnx" else 2)  # OpenVINO's batch is fixed to 1
    shape = judged(request.out, (1, 3, 40, 56), (1, 3, 7, 300))
    assert [isinstance(size, str) for size in shape] == [target == "onnx", False, True, True]


@pytest.mark.parametrize("target", STEPS)
def test_a_shape_fixes_them(target, request_for, tmp_path):
    pytest.importorskip("onnxruntime" if target == "onnx" else "openvino")
    request = request_for(write(tmp_path / "free.onnx"), target, ("picture=2x3x40x56",))
    result = convert(request, lambda _: None)
    assert "sizes" not in result.proof
    assert judged(request.out, (2, 3, 40, 56)) == (2, 3, 40, 56)
    manifest = Artifact.open(request.out).manifest
    assert manifest.conversion["options"]["shapes"] == ["picture=2x3x40x56"]
    assert manifest.source["name"] == "free.onnx"
    assert manifest.outputs[0].shape == (2, 5)


@pytest.mark.parametrize("unnamed", ["?", "-1", "None"])
def test_axes_that_are_called_any_size_need_not_be_equal(unnamed, request_for, tmp_path):
    pytest.importorskip("onnxruntime")
    source = write(tmp_path / "free.onnx", axes=[unnamed, 3, unnamed, unnamed])
    convert(request_for(source, shapes=("picture=2x3x40x56",)), lambda _: None)
    assert judged(tmp_path / "out", (2, 3, 40, 56)) == (2, 3, 40, 56)


def test_a_packed_model_is_fixed_too(request_for, tmp_path):
    pytest.importorskip("onnxruntime")
    request = request_for(write(tmp_path / "free.onnx"), shapes=("1x3x40x56",), steps=())
    convert(replace(request, options=replace(request.options, precision="fp32")), lambda _: None)
    assert judged(request.out, (1, 3, 40, 56)) == (1, 3, 40, 56)


def test_a_result_that_is_right_in_one_size_only_fails_and_names_the_other(request_for, step, tmp_path, monkeypatch):
    monkeypatch.setattr(type(step), "keeps_free_sizes", lambda *_: True)
    step.result = write(tmp_path / "once.onnx", only_at=64 * 96)
    with pytest.raises(ProofError, match=r"at picture=1x3x128x160, output 'y' is too far"):
        convert(request_for(write(tmp_path / "free.onnx")), lambda _: None)
    step.result = write(tmp_path / "twice.onnx")
    assert convert(request_for(write(tmp_path / "free.onnx")), lambda _: None).proof["passed"]


@pytest.mark.parametrize(
    ("imgsz", "wanted"), [("", "1x3x224x224"), ("[480, 640]", "1x3x480x640"), ("320", "1x3x320x320")]
)
def test_a_target_that_needs_fixed_sizes_asks_for_them_by_name(imgsz, wanted, request_for, step, tmp_path):
    with pytest.raises(InputError, match=r"'picture' has the free shape .*; onnx needs fixed sizes") as refusal:
        convert(request_for(write(tmp_path / "free.onnx", imgsz=imgsz)), lambda _: None)
    assert refusal.value.hint == f"fix them, such as --shape picture={wanted}"
    assert step.calls == []
    shaped = request_for(write(tmp_path / "free.onnx"), shapes=(f"picture={wanted}",))
    assert convert(shaped, lambda _: None).proof["passed"]


def test_given_inputs_have_sizes_of_their_own(request_for, tmp_path):
    pytest.importorskip("openvino")
    np.savez(tmp_path / "given.npz", picture=np.random.default_rng(1).standard_normal((4, 3, 20, 28)))
    request = request_for(write(tmp_path / "free.onnx"), "openvino", samples=tmp_path / "given.npz")
    assert convert(request, lambda _: None).proof["sizes"] == ["picture=1x3x20x28", "picture=1x3x64x96"]


def test_a_model_that_runs_in_no_tried_size_asks_for_one(request_for, step, make_classifier, monkeypatch):
    monkeypatch.setattr(type(step), "keeps_free_sizes", lambda *_: True)
    free = make_classifier("free.onnx", free=True)  # declares free rows, and takes four of them
    with pytest.raises(InputError, match="runs in none of the sizes that were tried"):
        convert(request_for(free), lambda _: None)
    assert convert(request_for(free, shapes=("1x4x4x3",)), lambda _: None).proof["passed"]


def test_shapes_that_do_not_fit_are_refused_before_any_conversion(request_for, step, tmp_path):
    with pytest.raises(UsageError, match="contradicts its fixed axis 1"):
        convert(request_for(write(tmp_path / "free.onnx"), shapes=("1x4x8x8",)), lambda _: None)
    assert step.calls == []
