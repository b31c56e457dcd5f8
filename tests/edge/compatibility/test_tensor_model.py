"""`edge check` as users run it: verdict, exit status, JSON, and nothing written."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge.cli import main
from edge.compatibility.tensor_model import check
from runtimes.errors import RefusedError

CORAL, PI_AND_CORAL = "coral-usb", "raspberry-pi-3b-plus+coral-usb"


@pytest.fixture
def ask(capsys, tmp_path, monkeypatch):
    """Run `edge check` from an empty folder, which has to stay empty."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def run(model: Path, device: str, *more: str) -> tuple[int, str, str]:
        before = sorted(path.name for path in model.parent.iterdir()) if model.parent.exists() else []
        status = main(["check", str(model), "--for", device, *more])
        printed = capsys.readouterr()
        assert list(here.iterdir()) == []
        assert before == (sorted(path.name for path in model.parent.iterdir()) if before else [])
        return status, printed.out, printed.err

    return run


def onnx_model(path: Path, *ops: str, shape: Any = (1, 4, 8, 8), opset: int = 13) -> Path:
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    names = ["x", *(f"t{index}" for index in range(len(ops)))]
    nodes = [helper.make_node(op, [names[i]], [names[i + 1]], name=f"node_{i}") for i, op in enumerate(ops)]
    ends = [helper.make_tensor_value_info(name, 1, size) for name, size in (("x", shape), (names[-1], None))]
    graph = helper.make_graph(nodes, "g", [ends[0]], [ends[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    path.write_bytes(model.SerializeToString())
    return path


def keras_file(path: Path, *layers: tuple[str, dict[str, Any]]) -> Path:
    config = {
        "class_name": "Sequential",
        "config": {
            "layers": [
                {"class_name": kind, "config": {"name": f"{kind.lower()}_{i}", **more}}
                for i, (kind, more) in enumerate(layers)
            ]
        },
    }
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", "{}")
        archive.writestr("model.weights.h5", b"")
    return path


@pytest.mark.parametrize("device", [CORAL, "raspberry-pi-3b-plus"])
@pytest.mark.parametrize("name", ["cut.h5", "cut/saved_model.pb"])
def test_a_broken_file_is_named_and_no_conversion_of_it_suggested(ask, tmp_path, name, device):
    path = tmp_path / "models" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(32) if name.endswith(".h5") else b"\x12\xff\xff\x03")
    model = path if name.endswith(".h5") else path.parent
    status, _, err = ask(model, device)
    assert status == 3
    assert str(model) in err.splitlines()[0]
    assert "edge convert" not in err


# --- Edge TPU --------------------------------------------------------------------------------------------------------


@pytest.mark.data
def test_a_model_that_maps_whole(ask, data):
    status, out, _ = ask(data / "mobilenet_v2/mobilenet_v2_1.0_224_quant.tflite", CORAL)
    assert status == 0
    assert "Coral USB Accelerator: 66 of 66 ops on the Edge TPU, 100% of the multiply-adds" in out.splitlines()[0]
    assert "all kept on the chip" in out
    assert "on the host" not in out


@pytest.mark.data
def test_a_model_that_breaks_names_the_node_and_counts_what_follows(ask, data):
    model = data / "edgetpu/deeplabv3_mnv2_dm05_pascal_quant.tflite"
    status, out, _ = ask(model, PI_AND_CORAL)
    lines = out.splitlines()
    assert status == 0
    assert "64 of 72 ops on the Edge TPU, 82.9% of the multiply-adds" in lines[0]
    assert lines[1].startswith("the chain breaks at node 64 RESIZE_BILINEAR: it resizes 1×1 to 33×33")
    assert "5 more come after it: 2 × CONV_2D, QUANTIZE" in out
    assert "ARG_MAX (node 71 ArgMax)" in out


@pytest.mark.data
def test_machines_get_every_node_with_its_placement(ask, data):
    _, out, _ = ask(data / "edgetpu/deeplabv3_mnv2_dm05_pascal_quant.tflite", CORAL, "--json")
    found = json.loads(out)
    assert found["device"] == CORAL
    assert [node["index"] for node in found["nodes"]] == list(range(72))
    assert {tuple(node) for node in found["nodes"]} == {("index", "op", "name", "placement", "reason", "fix")}
    assert {node["placement"] for node in found["nodes"]} == {"accelerator", "host"}
    assert all(bool(node["reason"]) == (node["placement"] == "host") for node in found["nodes"])
    assert found["accelerator_macs_share"] == pytest.approx(0.8287, abs=1e-4)
    assert found["parameter_bytes"] > 500_000
    assert found["runs"] is True
    assert found["cache"]["streamed_bytes"] == 0


@pytest.mark.data
def test_a_compiled_file_is_sent_to_inspect(ask, data):
    status, _, err = ask(data / "mobilenet_v2/mobilenet_v2_1.0_224_quant_edgetpu.tflite", CORAL)
    assert status == 3
    assert "already compiled" in err
    assert "edge inspect" in err


def test_a_keras_model_says_what_to_quantize_and_what_will_not_map(ask, tmp_path):
    layers = [
        ("InputLayer", {"batch_shape": [None, 8, 8, 3]}),
        ("Conv2D", {"activation": "relu"}),
        ("LeakyReLU", {"activation": None}),
        ("Dense", {"activation": {"class_name": "function", "config": "hard_silu"}}),
    ]
    status, out, _ = ask(keras_file(tmp_path / "m.keras", *layers), CORAL)
    assert status == 5
    assert "refused" in out.splitlines()[0]
    assert "edge convert m.keras --for coral-usb --calibration" in out
    assert "quantized to int8: 1 of 3 ops" in out
    assert "LeakyReLU (node 1 leakyrelu_2)" in out
    assert "HARD_SWISH" in out


def test_an_onnx_model_for_the_edge_tpu(ask, tmp_path):
    status, out, _ = ask(onnx_model(tmp_path / "m.onnx", "Relu", "LeakyRelu"), CORAL, "--json")
    found = json.loads(out)
    assert status == 5
    assert [node["placement"] for node in found["nodes"]] == ["host", "host"]
    assert [node["placement"] for node in found["after_quantisation"]["nodes"]] == ["accelerator", "host"]
    assert found["accelerator_macs_share"] == 0


def test_models_within_models_are_followed_to_a_limit(tmp_path):
    config: dict[str, Any] = {"class_name": "Sequential", "config": {"name": "m", "layers": []}}
    for _ in range(60):
        config = {"class_name": "Sequential", "config": {"name": "m", "layers": [config]}}
    path = tmp_path / "m.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(Exception, match="nested"):
        check(path, CORAL)


def test_other_formats_are_to_be_converted_first(tmp_path):
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"\x08\x01\x12\x00")  # one empty graph
    with pytest.raises(RefusedError, match="TFLite") as caught:
        check(folder, CORAL)
    assert "edge convert saved --for coral-usb --calibration" in caught.value.hint


# --- TensorRT --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("device", "status"), [("jetson-nano", 5), ("jetson-xavier-nx", 0), ("jetson-agx-orin", 0)])
def test_each_jetson_has_its_tensorrt(ask, tmp_path, device, status):
    model = onnx_model(tmp_path / "m.onnx", "Relu", "OneHot", opset=13)
    assert ask(model, device)[0] == status


def test_a_missing_operator_is_named_with_what_to_write_instead(ask, tmp_path):
    _, out, _ = ask(onnx_model(tmp_path / "m.onnx", "Relu", "OneHot"), "jetson-nano")
    assert "refused (1 of 2 ops could run on TensorRT 8.2)" in out
    assert "OneHot (node 1 node_1)" in out
    assert "compare a constant range" in out


def test_an_operator_that_is_written_in_others_runs(ask, tmp_path):
    status, out, _ = ask(onnx_model(tmp_path / "m.onnx", "Relu", "HardSwish"), "jetson-nano")
    assert status == 0
    assert "2 of 2 ops on TensorRT 8.2" in out
    assert "does not support HardSwish: edge convert writes 1 of them as x × HardSigmoid(x)" in out


def test_quantized_models_are_refused_by_a_jetson_nano_alone(ask, tmp_path):
    model = onnx_model(tmp_path / "m.onnx", "QuantizeLinear")
    status, out, _ = ask(model, "jetson-nano")
    assert status == 5
    assert "compute capability 5.3" in out
    assert ask(model, "jetson-agx-orin")[0] == 0


def test_a_board_with_tensorrt_says_that_other_formats_pass_it_by(ask, tmp_path):
    status, out, _ = ask(keras_file(tmp_path / "m.keras", ("Dense", {})), "jetson-nano")
    assert status == 0
    assert "TensorRT builds engines from ONNX" in out


# --- Movidius --------------------------------------------------------------------------------------------------------


def test_the_second_stick_runs_what_its_plugin_knows(ask, tmp_path):
    status, out, _ = ask(onnx_model(tmp_path / "m.onnx", "Relu", "Softmax"), "ncs2")
    assert status == 0
    assert "2 of 2 ops on the Movidius stick" in out
    assert "2022.3.1" in out


def test_the_first_stick_is_refused(ask, tmp_path):
    status, out, _ = ask(onnx_model(tmp_path / "m.onnx", "Relu"), "ncs1")
    assert status == 5
    assert "2020.3 LTS is the last" in out


def test_an_openvino_model_is_read_layer_by_layer(ask, tmp_path):
    openvino = pytest.importorskip("openvino")
    from openvino import opset8

    start = opset8.parameter([1, 3, 8, 8], np.float16, name="x")
    weights = opset8.constant(np.ones((4, 3, 1, 1), np.float16))
    made = opset8.convolution(opset8.relu(start), weights, [1, 1], [0, 0], [0, 0], [1, 1])
    openvino.save_model(openvino.Model([opset8.result(made)], [start], "m"), tmp_path / "m.xml")
    status, out, _ = ask(tmp_path / "m.xml", "ncs2", "--json")
    found = json.loads(out)
    assert status == 0
    assert [node["op"] for node in found["nodes"]] == ["ReLU", "Convolution"]
    assert found["refusals"] == []


# --- Other devices, and what is wrong --------------------------------------------------------------------------------


def test_a_device_without_accelerator_runs_it_on_the_processor(ask, tmp_path):
    status, out, _ = ask(onnx_model(tmp_path / "m.onnx", "Relu"), "raspberry-pi-5")
    assert status == 0
    assert "runs on the processor (Relu)" in out
    found = json.loads(ask(onnx_model(tmp_path / "m.onnx", "Relu"), "raspberry-pi-5", "--json")[1])
    assert found["accelerator"] is None
    assert found["accelerator_macs_share"] == 0


def test_int8_without_a_dot_product_is_warned_of(ask, tmp_path):
    model = onnx_model(tmp_path / "m.onnx", "QuantizeLinear")
    assert "no int8 dot product" in ask(model, "raspberry-pi-4")[1]
    assert "no int8 dot product" not in ask(model, "raspberry-pi-5")[1]


@pytest.mark.parametrize(
    ("name", "content", "device", "status", "words"),
    [
        ("m.tflite", None, CORAL, 3, "does not exist"),
        ("m.tflite", b"", CORAL, 3, "empty"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + b"\xff" * 64, CORAL, 3, "broken"),
        ("m.onnx", b"\xff" * 64, "jetson-nano", 3, "ONNX model"),
        ("m.keras", b"PK\x03\x04" + b"\0" * 64, CORAL, 3, "not a keras model"),
        ("m.doc", b"hello", CORAL, 3, "unknown kind"),
        ("m.tflite", b"", "coral-usbb", 2, "did you mean coral-usb"),
    ],
    ids=["absent", "empty", "damaged", "no ONNX", "no archive", "unknown", "no such device"],
)
def test_what_is_wrong_is_said_in_a_line_and_what_to_do(ask, tmp_path, name, content, device, status, words):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    got, out, err = ask(tmp_path / name, device)
    assert (got, out) == (status, "")
    assert words in err
    assert len(err.splitlines()) == 2


def test_errors_for_machines(ask, tmp_path):
    status, _, err = ask(tmp_path / "m.tflite", CORAL, "--json")
    assert status == 3
    assert json.loads(err)["error"] == "input"


def test_names_from_the_file_cannot_drive_the_terminal(ask, tmp_path):
    layers = [("LeakyReLU", {"name": "\x1b[2Jgone"})]
    assert "\x1b" not in ask(keras_file(tmp_path / "m.keras", *layers), CORAL)[1]


def test_what_was_made_for_tensorrt_is_checked_by_its_graph(ask, tmp_path):
    from runtimes.artifact import Manifest, write

    onnx_model(tmp_path / "m.onnx", "Relu", "HardSwish", opset=13)
    write(tmp_path, Manifest("m", "tensorrt", "fp16", "m.onnx"), {}, {})
    assert ask(tmp_path, "jetson-agx-orin")[0] == 0
    assert "HardSwish" in ask(tmp_path, "jetson-nano")[1]
