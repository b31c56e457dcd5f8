"""ONNX Runtime: all of its exceptions are handled, no silent fallback, and hostile models are refused."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from runtimes import registry
from runtimes.artifact import Artifact
from runtimes.engines import onnxruntime as adapter
from runtimes.errors import EngineError, InputError
from runtimes.session import RunOptions, example_feeds

ort = pytest.importorskip("onnxruntime")


@pytest.fixture
def model(models):
    return Artifact.open(models / "onnxruntime.onnx")


def open_it(model, **options):
    return registry.tensor_engine("onnxruntime").open(model, RunOptions(**options))


def test_every_exception_of_the_engine_is_known():
    state = ort.capi.onnxruntime_pybind11_state
    kinds = {name for name, kind in vars(state).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    about_the_file = {
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "ModelLoadCanceled",
        "ModelLoaded",
        "ModelRequiresCompilation",
        "NoModel",
        "NoSuchFile",
        "NotFound",
        "RuntimeException",
    }
    assert kinds == about_the_file | set(adapter.ENGINE_FAULTS), "decide whether the new one blames file or engine"


def test_what_fails_is_said_without_the_place_in_the_engines_code(tmp_path):
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n"]) for name in "xy"]
    sizes = numpy_helper.from_array(np.array([7]), "sizes")
    node = helper.make_node("Reshape", ["x", "sizes"], ["y"])
    graph = helper.make_graph([node], "g", values[:1], values[1:], [sizes])
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    with open_it(Artifact.open(tmp_path / "m.onnx")) as session, pytest.raises(EngineError) as caught:
        session.run({"x": np.zeros(5, np.float32)})
    assert "The input tensor cannot be reshaped to the requested shape" in caught.value.message
    assert "onnxruntime_src" not in caught.value.message


def test_an_int8_convolution_runs_where_its_weights_cannot_become_uint8(tmp_path, monkeypatch):
    onnx = pytest.importorskip("onnx")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    weights = np.random.default_rng(0).integers(-60, 61, (4, 3, 3, 3)).astype(np.int8)
    scale, step, zero = np.float32(0.01), np.float32(0.5), np.int8(0)
    constants = {"s": scale, "w": weights, "t": step, "z": zero}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "z", "t", "z"], ["c"], kernel_shape=[3, 3]),
        helper.make_node("DequantizeLinear", ["c", "t", "z"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, 1, shape) for name, shape in (("x", [1, 3, 3, 3]), ("y", [1, 4, 1, 1]))]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    opsets = [helper.make_opsetid("", 13)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(adapter, "has_int8_dot_product", lambda: False)
    values = np.random.default_rng(1).integers(-60, 61, (1, 3, 3, 3)) * scale
    expected = (weights * scale * values).sum(axis=(1, 2, 3))
    with open_it(Artifact.open(tmp_path / "m.onnx")) as session:
        (given,) = session.run({"x": values.astype(np.float32)}).values()
    assert np.abs(given.reshape(-1) - expected).max() <= step / 2 + 1e-6


def test_threads_and_settings_reach_the_engine(model, monkeypatch):
    seen = []
    inference_session = ort.InferenceSession

    def spy(path, options, **rest):
        seen.append(options)
        return inference_session(path, options, **rest)

    monkeypatch.setattr(ort, "InferenceSession", spy)
    monkeypatch.setattr(adapter, "has_int8_dot_product", lambda: False)
    with open_it(model, threads=1, settings={"spinning": "off"}) as session:
        assert session.threads == 1
        session.run(example_feeds(session.inputs))
    options = seen[0]
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 1)
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
    assert options.get_session_config_entry("session.x64quantprecision") == "1"


@pytest.mark.parametrize(("has", "int8"), [(True, "precise"), (False, "fast")])
def test_int8_is_left_to_the_engine(model, monkeypatch, has, int8):
    monkeypatch.setattr(adapter, "has_int8_dot_product", lambda: has)
    entries = registry.tensor_engine("onnxruntime")._entries(RunOptions(settings={"int8": int8}))
    assert "session.x64quantprecision" not in entries


@pytest.mark.parametrize(("precision", "override"), [("f32", "0"), ("auto", None)])
def test_tf32_is_off_unless_asked_for(model, monkeypatch, precision, override):
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    open_it(model, settings={"inference_precision": precision}).close()
    assert os.environ.get("NVIDIA_TF32_OVERRIDE") == override


def test_a_missing_provider_is_an_error(model, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(EngineError, match="has no TensorrtExecutionProvider"):
        open_it(model, device="tensorrt")


def test_a_silent_fallback_to_the_cpu_is_an_error(model, monkeypatch):
    inference_session = ort.InferenceSession
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(
        ort,
        "InferenceSession",
        lambda path, options, **_: inference_session(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(EngineError, match="could not start CUDAExecutionProvider and fell back"):
        open_it(model, device="cuda")


def test_an_unknown_operator_is_refused(model, tmp_path):
    content = model.model.read_bytes()
    (tmp_path / "m.onnx").write_bytes(content.replace(b"MatMul", b"MatMuX"))
    with pytest.raises(InputError, match="MatMuX"):
        open_it(Artifact.open(tmp_path / "m.onnx"))


def test_external_data_outside_the_folder_is_refused(tmp_path):
    entry = b"\x0a\x08location\x12\x09../secret"
    initializer = b"\x6a" + bytes([len(entry)]) + entry
    graph = b"\x2a" + bytes([len(initializer)]) + initializer
    (tmp_path / "m.onnx").write_bytes(b"\x3a" + bytes([len(graph)]) + graph)
    with pytest.raises(InputError, match=r"external data outside its folder: '\.\./secret'"):
        open_it(Artifact.open(tmp_path / "m.onnx"))


def test_a_failing_inference_is_an_error_of_the_engine(models, tmp_path):
    """Both inputs have a free batch; only the engine sees that the two sizes do not go together."""
    shutil.copy(models / "onnxruntime.onnx", tmp_path)
    with open_it(Artifact.open(tmp_path / "onnxruntime.onnx")) as session:
        feeds = {"wide": np.zeros((2, 4), np.float32), "narrow": np.zeros((3, 3), np.float32)}
        with pytest.raises(EngineError, match="onnxruntime failed to run the model") as caught:
            session.run(feeds)
    assert "\n" not in caught.value.message


def test_weights_that_share_a_zero_point_open_on_cpus_without_vnni(tmp_path, monkeypatch):
    """There int8 weights become uint8, which ONNX Runtime cannot do twice with one zero point."""
    onnx = pytest.importorskip("onnx")
    node, tensor = onnx.helper.make_node, onnx.helper.make_tensor
    kinds, rng = onnx.TensorProto, np.random.default_rng(0)
    weights = {name: rng.integers(-127, 128, (8, 8)) for name in "ab"}
    nodes, before = [node("QuantizeLinear", ["x", "s", "zx"], ["x_q"])], "x_q"
    for name in weights:
        nodes += [
            node("DequantizeLinear", [before, "s", "zx"], [f"{name}_x"]),
            node("DequantizeLinear", [name, "s", "zw"], [f"{name}_w"]),
            node("MatMul", [f"{name}_x", f"{name}_w"], [f"{name}_y"]),
            node("QuantizeLinear", [f"{name}_y", "s", "zx"], [f"{name}_q"]),
        ]
        before = f"{name}_q"
    nodes.append(node("DequantizeLinear", [before, "s", "zx"], ["y"]))
    constants = [
        tensor("s", kinds.FLOAT, (), [0.02]),
        tensor("zx", kinds.INT8, (), [3]),
        tensor("zw", kinds.INT8, (), [0]),
    ]
    constants += [tensor(name, kinds.INT8, (8, 8), values.reshape(-1)) for name, values in weights.items()]
    ends = [onnx.helper.make_tensor_value_info(name, kinds.FLOAT, [1, 8]) for name in "xy"]
    graph = onnx.helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    opset = onnx.helper.make_opsetid("", 13)
    onnx.save(onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8), tmp_path / "m.onnx")
    monkeypatch.setattr(adapter, "has_int8_dot_product", lambda: False)
    feeds = {"x": rng.uniform(-1, 1, (1, 8)).astype(np.float32)}
    with open_it(Artifact.open(tmp_path / "m.onnx")) as session:
        (actual,) = session.run(feeds).values()
    real = feeds["x"]
    for name in weights:
        rounded = np.clip(np.round(real / 0.02) + 3, -128, 127) - 3
        real = rounded * 0.02 @ (weights[name] * 0.02)
    np.testing.assert_allclose(actual, (np.clip(np.round(real / 0.02) + 3, -128, 127) - 3) * 0.02, atol=0.021)
