"""The Python API: typed results, the error tree, progress callbacks, and the cost of `import edge`."""

from __future__ import annotations

import ast
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import edge
from runtimes import artifact as artifacts
from runtimes.artifact import Manifest, SelfCheck
from runtimes.tasks.classification import Classification

ROOT = Path(__file__).parents[2]
SAMPLES = {"x": np.array([[1.0], [2.0]], np.float32)}
QUICK = edge.BenchOptions(protocol="published", runs=70, rounds=1)


@pytest.fixture
def null(tmp_path: Path) -> Path:
    """An artifact of the null engine, which answers its input."""
    folder = tmp_path / "null"
    folder.mkdir()
    (folder / "model.null").write_bytes(b"0")
    manifest = Manifest("m", "null", "fp32", "model.null", selfcheck=SelfCheck("max_abs", 1e-4, "synthetic"))
    artifacts.write(folder, manifest, SAMPLES, SAMPLES)
    return folder


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Three classes: the mean red, green and blue of a picture."""
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    nodes = [("GlobalAveragePool", "x", "m"), ("Flatten", "m", "f"), ("Softmax", "f", "y")]
    graph = helper.make_graph(
        [helper.make_node(op, [before], [after]) for op, before, after in nodes],
        "colors",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "colors.onnx")
    return tmp_path / "colors.onnx"


@pytest.fixture
def red(tmp_path: Path) -> Path:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[..., 0] = 200
    pytest.importorskip("PIL.Image").fromarray(pixels).save(tmp_path / "red.png")
    return tmp_path / "red.png"


RAW = edge.ModelHints(preprocess_options=edge.PreprocessOptions(mean=(0.0,) * 3, scale=(1.0,) * 3))


class TestOpen:
    def test_arrays_in_arrays_out(self, classifier):
        with edge.open(classifier, threads=1) as model:
            assert [(spec.name, spec.shape) for spec in model.inputs] == [("x", ("n", 3, 8, 8))]
            answer = model.run({"x": np.zeros((1, 3, 8, 8), np.float32)})
            again = model.run({"x": np.ones((2, 3, 8, 8), np.float32)})
        assert answer["y"].shape == (1, 3)
        assert np.allclose(again["y"], 1 / 3)

    def test_a_picture_is_answered_as_the_task_says(self, classifier, red):
        with edge.open(classifier, hints=RAW, top=1) as model:
            answer = model.predict(red)
        assert isinstance(answer, Classification)
        assert [one.index for one in answer.classes] == [0]

    def test_an_array_is_answered_as_its_file_is(self, classifier, tmp_path):
        array = np.random.default_rng(0).normal(size=(1, 3, 8, 8)).astype(np.float32)
        np.save(tmp_path / "one.npy", array)
        with edge.open(classifier) as model:
            assert model.predict(array) == model.predict({"x": array}) == model.predict(tmp_path / "one.npy")

    def test_several_samples_are_not_one(self, classifier):
        with edge.open(classifier) as model, pytest.raises(edge.UsageError, match="contains 2 samples"):
            model.predict(np.zeros((2, 1, 3, 8, 8), np.float32))

    def test_what_does_not_fit_is_an_input_error_and_the_model_continues(self, classifier):
        with edge.open(classifier) as model:
            with pytest.raises(edge.InputError, match="'x'"):
                model.run({"x": np.zeros((1, 3, 9, 9), np.float32)})
            assert model.run({"x": np.zeros((1, 3, 8, 8), np.float32)})["y"].shape == (1, 3)

    def test_a_file_that_is_no_picture(self, classifier, tmp_path):
        (tmp_path / "broken.png").write_bytes(b"no")
        with edge.open(classifier, hints=RAW) as model, pytest.raises(edge.InputError, match=r"broken\.png"):
            model.predict(tmp_path / "broken.png")


def test_run_gives_predictions_as_the_command_prints_them(classifier, red, capsys):
    from edge.cli import main

    (found,) = edge.run(classifier, [red], hints=RAW)
    assert main(["run", str(classifier), str(red), "--mean", "0", "--scale", "1", "--json"]) == 0
    (printed,) = json.loads(capsys.readouterr().out)
    times = ("latency_ms", "first_ms", "preprocess_ms", "decode_ms")
    assert {**found.to_json(), **dict.fromkeys(times)} == {**printed, **dict.fromkeys(times)}


def test_inspect(classifier):
    found = edge.inspect(classifier)
    assert found.ops == {"GlobalAveragePool": 1, "Flatten": 1, "Softmax": 1}
    assert json.loads(json.dumps(found.to_json()))["format"] == "onnx"


def test_check(classifier):
    found = edge.check(classifier, "raspberry-pi-4")
    assert found.runs
    assert found.to_json()["device"] == "raspberry-pi-4"
    with pytest.raises(edge.UsageError, match="rasberry"):
        edge.check(classifier, "rasberry-pi-4")


def test_verify(null):
    verdict = edge.verify(null)
    assert verdict.passed
    assert verdict.to_json()["runtime"] == "null"
    (null / "model.null").write_bytes(b"changed")
    with pytest.raises(edge.InputError):
        edge.verify(null)


def test_bench_reports_rows_and_its_progress(null):
    heard: list[edge.ProgressEvent] = []
    report = edge.bench(null, QUICK, on_progress=heard.append)
    assert [(row.status, len(row.samples_ms)) for row in report.rows] == [("ok", 70)]
    assert (heard[-1].done, heard[-1].total) == (1, 1)
    assert json.loads(json.dumps(report.to_json()))[0]["runtime"] == "null"


@pytest.mark.parametrize(
    ("options", "words"), [(edge.LlmBenchOptions(), "language models"), (edge.BenchOptions(runs=3), "does not apply")]
)
def test_options_of_another_kind_are_refused(null, options, words):
    with pytest.raises(edge.UsageError, match=words):
        edge.bench(null, options)


def test_devices():
    found = edge.devices()
    assert found.machine["cpu"]["logical_cores"] >= 1
    assert json.loads(json.dumps(found.to_json())).keys() >= {"machine", "conditions", "engines", "profiles"}


def test_deploy_of_a_bare_file_is_an_input_error(classifier):
    with pytest.raises(edge.InputError, match="bare model file"):
        edge.deploy(classifier, "nobody@nowhere.invalid")


def test_open_llm_names_what_is_no_language_model(null):
    with pytest.raises(edge.InputError, match="its format is null"):
        edge.open_llm(null)


def test_libraries_print_nothing():
    """`print` belongs to commands; a program that runs elsewhere may print."""
    printers = {
        "converters/environments/onnx2tf/job.py",
        "runtimes/board/report.py",
        "runtimes/standalone/receive.py",
        "runtimes/standalone/tensorrt_build.py",
    }
    found = set()
    for path in (
        path for room in ("edge", "converters", "runtimes", "device_profiles") for path in (ROOT / room).rglob("*.py")
    ):
        place = path.relative_to(ROOT).as_posix()
        calls = (node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call))
        if any(isinstance(call.func, ast.Name) and call.func.id == "print" for call in calls):
            found.add(place)
    commands = ("edge/cli/", "edge/console/", "edge/chat/")
    assert {place for place in found if not place.startswith(commands)} == printers


def test_the_command_line_ends_at_its_folder():
    below = [path for path in (ROOT / "edge").rglob("*.py") if "cli" not in path.parts]
    assert [path.name for path in below if "argparse" in path.read_text("utf-8")] == []


def test_after_every_module_each_function_is_callable():
    code = """
import importlib, pkgutil, edge
functions = [name for name in edge.__all__ if callable(getattr(edge, name))]
for module in pkgutil.walk_packages(edge.__path__, "edge."):
    if module.name != "edge.__main__":
        importlib.import_module(module.name)
print(*(name for name in functions if not callable(getattr(edge, name))))
print(len(functions))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    overwritten, count = done.stdout.splitlines()
    assert overwritten == ""
    assert int(count) == len(edge.__all__) - 1  # all but __version__


def test_the_log_is_shown_by_the_command_line_alone(capsys):
    from edge.cli import main

    assert main(["devices", "--json"]) == 0
    capsys.readouterr()
    logging.getLogger("edge.somewhere").warning("one %s", "word\x1b")
    logging.getLogger("edge.somewhere").info("assumed: another")
    assert capsys.readouterr().err == "edge: one word�\nassumed: another\n"
