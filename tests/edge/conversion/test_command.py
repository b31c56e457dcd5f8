"""`edge convert` as users run it: with a real engine, in a worker process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from converters.pipeline.request import ConvertResult
from edge.cli import main
from edge.cli.convert import _text_result
from edge.conversion.convert import _errors_name
from runtimes.artifact import MANIFEST, Artifact
from runtimes.errors import EngineError, ProofError

WAY = ["--mean", "127.5", "--scale", "0.00784313725490196", "--resize", "stretch"]


@pytest.fixture
def pictures(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 5, 3), np.uint8)
        image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def edge(capsys, *words) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of one command."""
    status = main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize(
    ("margins", "limits", "said"),
    [
        ([], {}, "continues 4 texts like the source (by numpy) for all 64 tokens"),
        (
            [0.0042],
            {"margin": 0.01},
            "1 text diverges, where the source prefers its token by 0.0042 of the scores' spread (limit 0.01)",
        ),
        (
            [0.31, 0.052],
            {},
            "2 texts diverge, where the source prefers its token by at most 0.31 of the scores' spread",
        ),
    ],
)
def test_where_greedy_texts_part_the_margin_is_reported(margins, limits, said):
    proof = {
        "partings": [{"token": 12.0 + place, "margin": margin} for place, margin in enumerate(margins)],
        "limits": {"snr_db": 40.0, **limits},
        "metrics": {"snr_db": 59.0, "top1_agreement": 0.99},
        **{"continued": 64, "samples": 4, "texts_tokenized": 40, "reference": "numpy"},
    }
    result = ConvertResult(artifact=Path("story"), files=("story.gguf",), format="gguf", precision="fp16", proof=proof)
    lines = _text_result(result).splitlines()
    assert any(line.endswith(said) for line in lines)
    assert ("for the first 12 of 64 tokens" in lines[2]) is bool(margins)


def test_a_source_that_no_engine_opens_costs_no_environment(tmp_path, monkeypatch, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper = onnx.helper
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("NoSuchOperator", ["x"], ["y"])], "unknown", ends[:1], ends[1:])
    model = tmp_path / "unknown.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    status, said, error = edge(capsys, "convert", model, "--to", "tflite", "--out", tmp_path / "out")
    assert (status, said) == (3, "")
    assert "NoSuchOperator" in error
    assert not (tmp_path / "cache" / "environments").exists()
    assert not (tmp_path / "out").exists()


def test_a_conversion_from_beginning_to_end(tmp_path, classifier, pictures, capsys):
    pytest.importorskip("openvino")
    pytest.importorskip("onnxruntime")
    out = tmp_path / "out"
    words = [classifier, "--to", "openvino", "--calibration", pictures, "--out", out, *WAY]
    status, said, _ = edge(capsys, "convert", *words, "--json")
    answer = json.loads(said)
    assert status == 0
    assert answer["artifact"] == str(out)
    assert (answer["format"], answer["precision"]) == ("openvino", "fp32")
    assert answer["files"] == ["classifier.bin", "classifier.xml", "manifest.json", "selfcheck.npz"]
    assert answer["proof"]["passed"] is True
    assert answer["proof"]["metrics"]["max_abs"] < 1e-4
    assert answer["proof"]["inputs"] == "pictures"
    way = Artifact.open(out).manifest.preprocess
    assert way is not None
    assert (way.crop, way.layout, way.resize) == ((4, 4), "NHWC", "stretch")
    assert not list(tmp_path.glob(".*"))

    status, said, _ = edge(capsys, "verify", out)
    assert status == 0
    assert "verified with openvino" in said

    assert edge(capsys, "convert", *words)[0] == 2
    status, said, progress = edge(capsys, "convert", *words, "--force")
    assert status == 0
    assert "proven on 12 pictures: max_abs" in said
    assert "onnx_to_openvino" in progress


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_prints_the_steps_and_writes_nothing(tmp_path, classifier, capsys, as_json):
    words = ["convert", classifier, "--to", "openvino", "--precision", "fp16", "--dry-run"]
    before = sorted(tmp_path.rglob("*"))
    status, said, _ = edge(capsys, *words, *(["--json"] if as_json else []))
    assert status == 0
    if as_json:
        assert json.loads(said)["steps"] == ["onnx_to_openvino"]
    else:
        assert said.splitlines() == [f"{classifier} (onnx) to openvino fp16", "1. onnx_to_openvino (fp16)"]
    assert sorted(tmp_path.rglob("*")) == before


def test_the_default_place_is_named_after_what_it_holds(tmp_path, classifier, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edge.conversion.convert.Worker", _Answering)
    assert edge(capsys, "convert", classifier, "--to", "openvino")[0] == 0
    assert (tmp_path / "classifier-openvino-fp32").is_dir()


@pytest.mark.parametrize(
    ("words", "status", "message", "hint"),
    [
        (["--to", "onnx", "--precision", "int8"], 2, "onnx int8 needs calibration data", "--calibration"),
        (["--to", "gold"], 2, "no format 'gold'", "what works"),
        (["--for", "raspberry-pi-999"], 2, "raspberry-pi-999", "raspberry-pi"),
        (["--for", "jetson-nano", "--to", "tensorrt", "--precision", "int8"], 5, "cannot take int8", "fp16"),
        (["--to", "openvino", "--calibration", "nowhere"], 3, "nowhere is not a folder", "folder"),
        (["--to", "openvino", "--calibration", "nowhere.npz"], 3, "nowhere.npz does not exist", "folder"),
    ],
)
def test_refusals(classifier, capsys, tmp_path, words, status, message, hint):
    found, said, error = edge(capsys, "convert", classifier, "--out", tmp_path / "out", *words, "--json")
    told = json.loads(error.splitlines()[-1])
    assert (found, said) == (status, "")
    assert message in told["message"]
    assert hint in told["hint"]
    assert not (tmp_path / "out").exists()


def test_pictures_need_a_way(classifier, pictures, capsys, tmp_path):
    status, _, error = edge(
        capsys, "convert", classifier, "--to", "openvino", "--calibration", pictures, "--out", tmp_path / "out"
    )
    assert status == 2
    assert "the preprocessing of the pictures is not known" in error
    assert "--preprocess" in error


@pytest.mark.parametrize("content", [b"", b"\x08\x07\x12", b"\x00" * 300, b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["model.onnx", "model.keras", "model.tflite", "model.pt2"])
def test_broken_models_are_one_line(tmp_path, capsys, monkeypatch, name, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content)
    status, said, error = edge(capsys, "convert", name, "--to", "openvino", "--json")
    assert status in (2, 3)
    assert said == ""
    assert set(json.loads(error.splitlines()[-1])) == {"error", "message", "hint"}
    assert [path.name for path in tmp_path.iterdir()] == [name]


class _Answering:
    """A worker that writes a manifest and answers, or fails its proof."""

    fails = False

    def __init__(self, module):
        assert module == "edge.evaluation.worker"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def run(self, job, *, timeout_s, on_progress=None):

        Path(job.out, MANIFEST).write_text("{}")
        if self.fails:
            raise ProofError("output 'p' is too far from the source's: snr_db 4, at least 12", f"kept in {job.kept}")
        proof = {"passed": True, "metrics": {}, "limits": {}, "samples": 8, "inputs": "synthetic", "range": [0, 255]}
        return ConvertResult(
            format=job.format,
            precision=job.options.precision,
            files=(MANIFEST,),
            proof=proof,
            notes=("12 calibration samples are few",),
            left=("build it on the board",),
        )


def test_notes_go_to_stderr(classifier, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("edge.conversion.convert.Worker", _Answering)
    _, said, error = edge(capsys, "convert", classifier, "--to", "openvino", "--out", tmp_path / "out")
    assert "note: 12 calibration samples are few" in error
    assert "8 seeded synthetic inputs of 0 to 255 (--calibration passes real ones" in said
    assert said.splitlines()[-1] == "  build it on the board"


def test_a_failed_proof_is_exit_6_and_kept_aside(classifier, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("edge.conversion.convert.Worker", _Answering)
    monkeypatch.setattr(_Answering, "fails", True)
    out = tmp_path / "out"
    status, said, error = edge(capsys, "convert", classifier, "--to", "openvino", "--out", out)
    assert (status, said) == (6, "")
    assert "snr_db 4, at least 12" in error
    assert str(tmp_path / "out.failed") in error
    assert not out.exists()
    assert (tmp_path / "out.failed" / MANIFEST).is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT for a single process")
def test_ctrl_c_leaves_nothing_behind(tmp_path, classifier):
    out = tmp_path / "results" / "out"
    out.parent.mkdir()
    words = ["convert", str(classifier), "--to", "openvino", "--out", str(out)]
    process = subprocess.Popen(
        [sys.executable, "-m", "edge", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(out.parent.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    said, error = process.communicate(timeout=60)
    assert (process.returncode, said) == (130, "")
    assert error.splitlines()[-1] == "edge: stopped"
    assert list(out.parent.iterdir()) == []


_SAMPLES = """
import os
import numpy as np

def same():
    random = np.random.default_rng(3)
    return (random.uniform(-1, 1, (4, 4, 3)) for _ in range(40))

def other():
    return (np.random.uniform(-1, 1, (4, 4, 3)) for _ in range(40))

def crashing():
    os.abort()
"""


@pytest.fixture
def samples(tmp_path):
    (tmp_path / "mine.py").write_text(_SAMPLES, encoding="utf-8")
    return f"{tmp_path / 'mine.py'}:"


def test_int8_from_samples_that_own_code_yields(tmp_path, classifier, samples, capsys):
    pytest.importorskip("onnxruntime")
    words = ["convert", classifier, "--to", "onnx", "--precision", "int8", "--calibration", f"{samples}same"]
    status, said, _ = edge(capsys, *words, "--dry-run")
    assert status == 0
    assert "its Python code runs twice" in said
    for name in ("a", "b"):
        status, said, _ = edge(capsys, *words, "--out", tmp_path / name, "--json")
        assert status == 0
        assert json.loads(said)["proof"]["inputs"] == "arrays"
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert Artifact.open(tmp_path / "a").manifest.conversion["calibration_samples"] == 32


@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("other", 3, "yielded other samples when it was run again"),
        ("crashing", 8, "crashed with SIGABRT"),
        ("gone", 3, "mine.py has no 'gone'"),
    ],
)
def test_code_that_fails_or_changes_its_mind_is_an_error(tmp_path, classifier, samples, capsys, name, status, words):
    pytest.importorskip("onnxruntime")
    command = ["convert", classifier, "--to", "onnx", "--precision", "int8", "--calibration", f"{samples}{name}"]
    found, _, said = edge(capsys, *command, "--out", tmp_path / "out")
    assert found == status
    assert words in said
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


def test_an_error_about_a_model_of_given_sizes_names_the_users_file(tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("openvino")
    helper, table = onnx.helper, np.geomspace(1, 1e6, 32, dtype=np.float32).reshape(8, 4)
    graph = helper.make_graph(
        [helper.make_node("Gather", ["table", "ids"], ["rows"])],
        "g",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", 3])],
        [helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, ["n", 3, 4])],
        [onnx.numpy_helper.from_array(table, "table")],
    )
    model = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), model)
    words = ("convert", model, "--to", "openvino", "--precision", "fp16", "--shape", "ids=1x3")
    status, _, err = edge(capsys, *words, "--out", tmp_path / "out")
    assert status != 0
    assert f"{model} with the given sizes does not fit in fp16: the constant 'table'" in err


def test_an_error_about_an_intermediate_file_names_the_users_file(tmp_path):
    model, work = tmp_path / "my_net.keras", tmp_path / ".out.x1.partial"
    step = work / "steps" / "keras_to_onnx" / "my_net.onnx"
    with pytest.raises(EngineError) as caught, _errors_name(model, work):
        raise EngineError(f"OpenVINO does not convert these operators of {step}: Loop-17", "")
    assert caught.value.message == f"OpenVINO does not convert these operators of {model} as .onnx: Loop-17"
    with pytest.raises(EngineError) as caught, _errors_name(model, work):
        raise EngineError(f"cannot open {work / 'artifact' / 'my_net.xml'}: no", "")
    assert caught.value.message == f"cannot open the result of {model}: no"
