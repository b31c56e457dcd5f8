"""The first tensor that a wrong conversion computes differently is found, in every format, with its cause."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from converters.options import ConvertOptions
from converters.pipeline import explanation
from converters.pipeline.convert import convert
from converters.pipeline.execute import read_inputs
from converters.pipeline.request import ConvertRequest
from converters.proof import explain
from converters.proof.divergence import LostSlice, first_divergence
from converters.proof.explain import ModelWithInput
from converters.proof.inner_tensors import InnerTensor, inner_tensors
from runtimes.errors import ProofError

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
helper, FLOAT = onnx.helper, onnx.TensorProto.FLOAT
NODE, TENSOR = helper.make_node, helper.make_tensor_value_info
MODELS = Path(__file__).parents[2] / "runtimes" / "models"
FEEDS = {"x": np.random.default_rng(0).standard_normal((1, 3, 12, 12)).astype(np.float32)}


def weights(*shape, seed):
    return onnx.numpy_helper.from_array((np.random.default_rng(seed).standard_normal(shape) * 0.4).astype(np.float32))


def network(path, change=(), rename=False, scale=1.0):
    """Conv, Relu, Conv, Add, Sigmoid; `change` is put behind the first Relu, `rename` gives inner tensors new names."""
    a, b = weights(4, 3, 3, 3, seed=1), weights(4, 4, 3, 3, seed=2)
    a.name, b.name = "a", "b"
    nodes = [
        NODE("Conv", ["x", "a"], ["c1"], pads=[1] * 4),
        NODE("Relu", ["c1"], ["r1" if not change else "r0"]),
        *(onnx.NodeProto.FromString(node.SerializeToString()) for node in change),
        NODE("Conv", ["r1", "b"], ["c2"], pads=[1] * 4),
        NODE("Add", ["c2", "r1"], ["s"]),
        NODE("Sigmoid", ["s"], ["y"]),
    ]
    if rename:
        for place, node in enumerate(nodes):
            for names in (node.input, node.output):
                for index, name in enumerate(names):
                    if name not in ("x", "a", "b", "y", "k", "low", "high"):
                        names[index] = f"inner_{name}"
            node.name = f"n{place}"
    constants = [a, b, onnx.numpy_helper.from_array(np.float32(scale), "k")]
    constants += [onnx.numpy_helper.from_array(np.float32(value), name) for name, value in (("low", 0), ("high", 1))]
    graph = helper.make_graph(
        nodes, "g", [TENSOR("x", FLOAT, [1, 3, 12, 12])], [TENSOR("y", FLOAT, [1, 4, 12, 12])], constants
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7), path)
    return path


def found(tmp_path, precision="fp32", **changes):
    source = inner_tensors(network(tmp_path / "source.onnx"), "onnx", FEEDS)
    result = inner_tensors(network(tmp_path / "result.onnx", **changes), "onnx", FEEDS)
    return first_divergence(source, result, precision)


FAULTS = {
    "semantics": [NODE("Sin", ["r0"], ["r1"])],
    "saturation": [NODE("Clip", ["r0", "low", "high"], ["r1"])],
    "layout": [NODE("Transpose", ["r0"], ["r1"], perm=[0, 1, 3, 2])],
    "scale": [NODE("Mul", ["r0", "k"], ["r1"])],
}


@pytest.mark.parametrize("rename", [False, True], ids=["same names", "other names"])
@pytest.mark.parametrize("cause", FAULTS)
def test_the_tensor_behind_a_fault_is_named_with_its_cause(tmp_path, cause, rename):
    if rename and cause != "scale":  # r0 is still the source's r1 by value: the next operator is where they part
        divergence = found(tmp_path, change=FAULTS[cause], rename=rename, scale=0.5)
        assert (divergence.tensor, divergence.operator) == ("c2", "Conv")
        return
    divergence = found(tmp_path, change=FAULTS[cause], rename=rename, scale=0.5)
    if not rename:
        assert (divergence.tensor, divergence.operator, divergence.cause) == ("r1", "Relu", cause)
        assert "'r1' (Relu)" in str(divergence)


@pytest.mark.parametrize("rename", [False, True])
def test_right_results_have_no_divergence(tmp_path, rename):
    assert found(tmp_path, rename=rename) is None


def test_tensors_that_are_fused_are_no_divergence(tmp_path):
    source = inner_tensors(network(tmp_path / "source.onnx"), "onnx", FEEDS)
    fused = [one for one in source if one.names[0] not in ("c1", "s")]
    assert first_divergence(source, fused, "fp32") is None


def test_channels_last_is_no_divergence(tmp_path):
    source = inner_tensors(network(tmp_path / "source.onnx"), "onnx", FEEDS)
    turned = [
        InnerTensor(
            names=(f"other_{one.names[0]}",),
            operator=one.operator,
            inputs=(),
            values=np.ascontiguousarray(one.values.transpose(0, 2, 3, 1)),
        )
        for one in source
    ]
    assert first_divergence(source, turned, "fp32") is None


def tensor(name, values, inputs=(), operator="Conv", is_output=False):
    return InnerTensor(
        names=(name,), operator=operator, inputs=inputs, values=np.asarray(values, np.float32), is_output=is_output
    )


VALUES = np.random.default_rng(4).standard_normal((1, 8, 6, 6)).astype(np.float32)
NOISE = np.random.default_rng(5).standard_normal(VALUES.shape) * 4  # in steps


@pytest.mark.parametrize(
    ("precision", "values", "result", "cause"),
    [
        ("fp16", VALUES * 1e5, np.where(np.abs(VALUES) > 0.65, np.inf, VALUES * 1e5), "range"),
        ("int8", VALUES, np.zeros_like(VALUES), "range"),
        ("int8", VALUES, np.round(VALUES / 2) * 2, "range"),
        ("int8", np.cumsum(VALUES, 2) * 40, np.round(np.cumsum(VALUES, 2) * 40 / 9 + NOISE) * 9, "rounding"),
        ("fp32", VALUES, VALUES[::-1, ::-1], "layout"),
    ],
)
def test_the_cause_is_derived_from_the_values(precision, values, result, cause):
    divergence = first_divergence([tensor("t", values)], [tensor("t", result)], precision)
    assert divergence.cause == cause


def test_a_slice_that_is_lost_names_the_output():
    values = np.concatenate([VALUES[:, :4] * 100, 1 / (1 + np.exp(-VALUES[:, 4:]))], axis=1)
    result = np.round(values / 2.5) * 2.5
    lost = LostSlice(output="out", axis=1, first=4, last=7, where="channels 4..7")
    arrays = [tensor("out", one, operator="Concat", is_output=True) for one in (values, result)]
    assert first_divergence(arrays[:1], arrays[1:], "int8") is None
    divergence = first_divergence(arrays[:1], arrays[1:], "int8", lost)
    assert (divergence.tensor, divergence.operator, divergence.cause) == ("out", "Concat", "range")
    assert "channels 4..7: " in divergence.explanation


def spoiled(folder, name):
    """A copy of a tiny model that computes a × W + b and 2 a, with other weights W."""
    for path in MODELS.glob(f"{Path(name).stem}.*"):
        shutil.copyfile(path, folder / path.name)
    weights = np.arange(-6, 6, dtype=np.float32).reshape(4, 3)
    for path in folder.glob(f"{Path(name).stem}.*"):
        content = path.read_bytes()
        for order in (weights, weights.T):
            content = content.replace(order.tobytes(), (order[::-1] * 3).tobytes())
        path.write_bytes(content)
    return folder / name


RNG = np.random.default_rng(1)
TINY = {
    "wide": RNG.standard_normal((1, 4)).astype(np.float32),
    "narrow": RNG.standard_normal((1, 3)).astype(np.float32),
}
FORMATS = {"onnx": "onnxruntime.onnx", "tflite": "litert.tflite", "openvino": "openvino.xml"}
LIBRARIES = {"onnx": "onnxruntime", "tflite": "ai_edge_litert", "openvino": "openvino"}


def read(path, model_format):
    feeds = {spec.name: TINY["wide" if spec.shape[-1] == 4 else "narrow"] for spec in read_inputs(path, model_format)}
    return inner_tensors(path, model_format, feeds)


@pytest.mark.parametrize(
    ("source", "target"), [("onnx", "onnx"), ("onnx", "tflite"), ("onnx", "openvino"), ("tflite", "tflite")]
)
def test_in_every_format(tmp_path, source, target):
    for name in (source, target):
        pytest.importorskip(LIBRARIES[name])
    original, right = (read(MODELS / FORMATS[name], name) for name in (source, target))
    assert first_divergence(original, right, "fp32") is None
    wrong = read(spoiled(tmp_path, FORMATS[target]), target)
    divergence = first_divergence(original, wrong, "fp32")
    assert divergence.operator in ("MatMul", "Gemm", "Add", "FULLY_CONNECTED")


@pytest.fixture
def failing(tmp_path, monkeypatch):
    """A conversion whose step writes another network than its source."""
    from converters.onnx_to_onnx import OnnxToOnnx

    real = OnnxToOnnx.convert

    def convert_wrongly(self, model, out, options, calibration):
        return real(self, network(tmp_path / "wrong.onnx", change=FAULTS["semantics"]), out, options, calibration)

    monkeypatch.setattr(OnnxToOnnx, "convert", convert_wrongly)
    (tmp_path / "out").mkdir()
    return ConvertRequest(
        source=network(tmp_path / "source.onnx"),
        steps=("onnx_to_onnx",),
        format="onnx",
        options=ConvertOptions(precision="fp16"),
        out=tmp_path / "out",
        scratch=tmp_path,
    )


def test_a_failed_proof_says_where_and_why(failing, monkeypatch):
    monkeypatch.setattr(explain, "LIMIT_S", 300.0)
    with pytest.raises(ProofError) as caught:
        convert(failing, lambda progress: None)
    assert "the first tensor that differs is 'r1' (Relu)" in caught.value.message
    divergence = json.loads(json.dumps(caught.value.as_dict()))["details"]["first_divergence"]
    assert divergence["tensor"] == "r1"
    assert divergence["cause"] == "semantics"


def raising(*_, **__):
    raise MemoryError("all of it")


@pytest.mark.parametrize("change", ["limit", "crash", "raise"])
def test_a_failure_to_explain_never_hides_the_verdict(failing, monkeypatch, change):
    if change == "limit":
        monkeypatch.setattr(explain, "LIMIT_S", 0.01)
    elif change == "crash":
        monkeypatch.setattr(explain.sys, "executable", "/bin/false")
    else:
        monkeypatch.setattr(explanation, "explain", raising)
    with pytest.raises(ProofError, match=r"snr_db|output 'y'") as caught:
        convert(failing, lambda progress: None)
    assert "first_divergence" not in caught.value.details


def test_an_unreadable_format_is_not_explained(tmp_path):
    model = ModelWithInput(path=tmp_path / "m.pt2", format="pt2", feeds={})
    assert explain.explain(model, model, "fp32", tmp_path) is None
