"""`edge inspect` as users and programs run it."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import main
from edge.inspection import Inspection
from runtimes.artifact import Quantization, TensorSpec
from tests.real_data import real_data

ROOT = Path(__file__).parents[3]
MODELS = ROOT / "tests" / "runtimes" / "models"
KEYS = {"file", "format", "precision", "inputs", "outputs", "ops", "parameter_bytes", "size_bytes", "output_op"}
KEYS |= {"metadata", "labels", "edgetpu", "notes", "manifest", "task"}


def inspected(capsys, path: Path) -> dict:
    assert main(["inspect", str(path), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_an_engine_of_tensorrt_tells_nothing_elsewhere(capsys):
    assert main(["inspect", str(MODELS / "tensorrt.engine")]) == 2
    assert "inspect the .onnx" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["onnxruntime.onnx", "litert.tflite", "openvino.xml", "keras.keras", "torch.pt2"])
def test_json_has_the_same_keys_for_every_format(capsys, name):
    found = inspected(capsys, MODELS / name)
    assert set(found) == KEYS
    assert set(found["inputs"][0]) == {"name", "dtype", "shape", "quantization"}
    assert found["edgetpu"] is None
    assert found["manifest"] is None


def test_text_for_people(capsys):
    assert main(["inspect", str(MODELS / "onnxruntime.onnx")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "onnxruntime.onnx: onnx, fp32, 293 bytes",
        "  input       wide  float32[batch, 4]",
        "  input       narrow  float32[batch, 3]",
        "  output      sum  float32[batch, 3]",
        "  output      double  float32[batch, 4]",
        "  ops         3: Add 2, MatMul 1",
        "  constants   48 bytes float32",
        "  ir_version  7",
        "  opset       ai.onnx 13",
        "  task        unknown: the outputs are printed as they are (--task)",
    ]


def test_an_artifact_shows_its_manifest(capsys, tmp_path):
    (tmp_path / "model.onnx").write_bytes((MODELS / "onnxruntime.onnx").read_bytes())
    manifest = {"schema": 1, "name": "tiny", "format": "onnx", "precision": "fp32", "model": "model.onnx"}
    manifest |= {"files": {"model.onnx": "0"}, "inputs": [], "outputs": [], "proof": {"passed": True}}
    manifest["output"] = {"kind": "logit", "label_offset": 1}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert inspected(capsys, tmp_path)["manifest"]["name"] == "tiny"
    assert main(["inspect", str(tmp_path)]) == 0
    assert "answers     logit, label offset 1" in capsys.readouterr().out


def test_names_from_the_file_cannot_steer_the_terminal(capsys, tmp_path):
    content = (MODELS / "onnxruntime.onnx").read_bytes()
    (tmp_path / "model.onnx").write_bytes(content.replace(b"narrow", b"\x1b[2Jab"))
    assert main(["inspect", str(tmp_path / "model.onnx")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "�[2Jab" in out


@pytest.mark.data
def test_metadata_and_labels_of_a_real_tflite_file(capsys):
    found = inspected(capsys, real_data("mobilenet_v2/mobilenet_v2_1.0_224_quant.tflite"))
    assert found["ops"] == {
        "CONV_2D": 36,
        "DEPTHWISE_CONV_2D": 17,
        "ADD": 10,
        "AVERAGE_POOL_2D": 1,
        "RESHAPE": 1,
        "SOFTMAX": 1,
    }
    assert (found["precision"], found["output_op"]) == ("int8", "SOFTMAX")
    assert found["metadata"]["name"] == "ImageClassifier"
    assert (found["metadata"]["mean"], found["metadata"]["std"]) == ([127.5], [127.5])
    assert found["metadata"]["min_runtime_version"] == "1.5.0"
    expected = (real_data("mobilenet_v2/imagenet_labels_1001.txt")).read_text().splitlines()
    assert found["labels"] == [label.strip() for label in expected]


@pytest.mark.data
def test_a_compiled_file_has_the_facts_of_the_compiler_log(capsys):
    path = real_data("edgetpu/deeplabv3_mnv2_dm05_pascal_quant_edgetpu.tflite")
    found = inspected(capsys, path)
    assert found["format"] == "edgetpu"
    assert found["edgetpu"]["cached_bytes"] == 766_720
    assert found["edgetpu"]["cpu_ops"]["RESIZE_BILINEAR"] == 3
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "runtime 12 or newer; chip beagle; compiler not named" in out
    assert "parameters kept on the chip: 766,720 bytes" in out
    assert "operators left on the CPU: 8: RESIZE_BILINEAR 3" in out


def test_nothing_is_imported_to_look_into_a_model():
    formats = [str(MODELS / name) for name in ("onnxruntime.onnx", "litert.tflite", "openvino.xml", "torch.pt2")]
    formats += [str(MODELS / "keras.keras"), str(MODELS / "tensorflow")]
    engines = "{'onnx', 'onnxruntime', 'flatbuffers', 'google', 'ai_edge_litert', 'tensorflow', 'keras', 'torch'}"
    code = "import sys; from edge.cli import main\nfor path in sys.argv[1:]: assert main(['inspect', path]) == 0\n"
    code += f"loaded = {engines} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code, *formats], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("argument", "status", "words"),
    [
        ("missing.onnx", 3, "does not exist"),
        ("model.txt", 3, "unknown kind of model"),
        (".", 3, "is a folder without manifest.json or saved_model.pb"),
    ],
)
def test_what_is_no_model_is_one_line_and_status_3(capsys, tmp_path, monkeypatch, argument, status, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.txt").write_text("hello")
    assert main(["inspect", argument, "--json"]) == status
    error = json.loads(capsys.readouterr().err)
    assert error["error"] == "input"
    assert words in error["message"]
    assert error["hint"]


def test_a_number_that_json_does_not_have_becomes_null() -> None:
    scale = Quantization(scales=(math.inf,), zero_points=(0,))
    found = Inspection(
        format="gguf",
        inputs=(TensorSpec("x", "int8", (1,), scale),),
        outputs=(),
        ops={},
        precision="fp16",
        metadata={"theta": math.nan, "betas": [1.0, math.inf]},
    )
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["metadata"] == {"theta": None, "betas": [1.0, None]}
    assert document["inputs"][0]["quantization"]["scales"] == [None]
