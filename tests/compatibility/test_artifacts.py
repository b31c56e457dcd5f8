"""Artifacts of 0.1.0 open, verify and run in every later version; `make_artifacts.py` describes how they were made."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from runtimes.artifact.json_fields import JsonValue

HERE = Path(__file__).parent
MAX_BYTES = 20 * 1024
Edge = Callable[..., "subprocess.CompletedProcess[str]"]

# The outputs of 0.1.0 for the picture: the most likely label and its probability. All but one have the same weights.
ANSWERS: Mapping[str, tuple[str, float]] = {
    "keras-fp32": ("horse", 0.3526),
    "onnx-fp32": ("horse", 0.3526),
    "onnx-int8": ("horse", 0.3529),
    "openvino-fp16": ("horse", 0.3526),
    "openvino-fp32": ("horse", 0.3526),
    "pt2-fp32": ("dog", 0.2469),
    "savedmodel-fp32": ("horse", 0.3526),
    "tflite-fp32": ("horse", 0.3526),
    "tflite-int8": ("horse", 0.3555),
    "tflite-int8-for-coral": ("horse", 0.3555),
}
# The continuation of 0.1.0's language model, and its number of tokens.
WORDS = ("abc" * 8, 8)
# Format → the library that its engine needs.
ENGINES = {
    "gguf": "llama_cpp",
    "keras": "keras",
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "pt2": "torch",
    "savedmodel": "tensorflow",
    "tflite": "ai_edge_litert",
}
# Formats that only run on an accelerator → the message without one.
ACCELERATED = {
    "edgetpu-int8": ("the Edge TPU's library is missing", "install libedgetpu1-std"),
    "tensorrt-fp16": ("the engine 'tensorrt' is not installed", "tensorrt"),
    "tensorrt-int8-implicit": ("the engine 'tensorrt' is not installed", "tensorrt"),
}
CLASSIFIERS = [name for name in sorted(path.name for path in (HERE / "artifacts").iterdir()) if "gguf" not in name]
ALL = [*CLASSIFIERS, "gguf-fp16"]


def manifest_of(artifacts: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((artifacts / name / "manifest.json").read_text(encoding="utf-8")))


def needs_engine(artifacts: Path, name: str) -> None:
    """Skip if the engine is not installed."""
    library = ENGINES[manifest_of(artifacts, name)["format"]]
    if find_spec(library) is None:
        pytest.skip(f"needs {library}")


def test_every_format_is_there(artifacts: Path) -> None:
    assert sorted(ALL) == sorted(path.name for path in artifacts.iterdir())
    formats = {manifest_of(artifacts, name)["format"] for name in ALL}
    assert formats == {*ENGINES, "edgetpu", "tensorrt"}


@pytest.mark.parametrize("name", ALL)
def test_an_artifact_is_small(artifacts: Path, name: str) -> None:
    assert sum(path.stat().st_size for path in (artifacts / name).rglob("*") if path.is_file()) < MAX_BYTES


def _common(found: JsonValue, known: JsonValue) -> JsonValue:
    """Return `found` without the keys that newer versions add."""
    if isinstance(found, dict) and isinstance(known, dict):
        return {key: _common(value, known[key]) for key, value in found.items() if key in known}
    if isinstance(found, list) and isinstance(known, list) and len(found) == len(known):
        return [_common(one, other) for one, other in zip(found, known, strict=True)]
    return found


@pytest.mark.parametrize("name", ALL)
def test_an_artifact_opens(artifacts: Path, name: str, edge: Edge) -> None:
    done = edge("inspect", artifacts / name, "--json")
    assert done.returncode == 0, done.stderr
    found, manifest = json.loads(done.stdout), manifest_of(artifacts, name)
    assert found["format"] == manifest["format"]
    read = {key: value for key, value in manifest.items() if key != "schema"}
    assert _common(found["manifest"], read) == read
    assert found["file"].endswith(manifest["model"])
    assert bool(found["edgetpu"]) == (manifest["format"] == "edgetpu")


@pytest.mark.parametrize("name", sorted({*ALL} - {*ACCELERATED}))
def test_an_artifact_verifies(artifacts: Path, name: str, edge: Edge) -> None:
    needs_engine(artifacts, name)
    done = edge("verify", artifacts / name, "--json")
    assert done.returncode == 0, done.stderr
    verdict, check = json.loads(done.stdout), manifest_of(artifacts, name)["selfcheck"]
    assert verdict["passed"] is True
    assert check["metric"] in verdict["metrics"]


@pytest.mark.parametrize("name", ALL)
def test_a_changed_artifact_does_not_verify(artifacts: Path, tmp_path: Path, name: str, edge: Edge) -> None:
    copy = Path(shutil.copytree(artifacts / name, tmp_path / name))
    (copy / "selfcheck.npz").write_bytes(b"changed")
    done = edge("verify", copy, "--json")
    assert done.returncode == 3
    assert "selfcheck.npz has changed" in json.loads(done.stderr)["message"]


@pytest.mark.parametrize("name", sorted({*CLASSIFIERS} - {*ACCELERATED}))
def test_an_artifact_runs_and_answers_as_before(artifacts: Path, picture: Path, name: str, edge: Edge) -> None:
    needs_engine(artifacts, name)
    done = edge("run", artifacts / name, picture, "--json")
    assert done.returncode == 0, done.stderr
    ((best, *_),) = [one["top"] for one in json.loads(done.stdout)]
    label, probability = ANSWERS[name]
    assert best["label"] == label
    # int8 kernels round differently on different processors: a step of the output is 1 / 256.
    assert best["probability"] == pytest.approx(probability, abs=3 / 256 if "int8" in name else 1e-3)


def test_a_language_model_runs(artifacts: Path, edge: Edge) -> None:
    needs_engine(artifacts, "gguf-fp16")
    pytest.importorskip("jinja2")
    words = ("--template", "plain", "--temp", "0", "--max-tokens", "8", "--threads", "1", "--json")
    done = edge("chat", artifacts / "gguf-fp16", "abc de", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["answer"], found["tokens"]) == WORDS


@pytest.mark.parametrize("command", ["verify", "run"])
@pytest.mark.parametrize("name", ACCELERATED)
def test_what_an_accelerator_runs_is_refused_without_it(
    artifacts: Path, picture: Path, name: str, command: str, edge: Edge
) -> None:
    if name.startswith("tensorrt") and find_spec("tensorrt"):
        pytest.skip("TensorRT is installed here")
    if name == "edgetpu-int8":
        pytest.importorskip("ai_edge_litert")
    done = edge(command, artifacts / name, *([picture] if command == "run" else []), "--json")
    assert done.returncode == 4
    error = json.loads(done.stderr.splitlines()[-1])
    what, hint = ACCELERATED[name]
    assert error["error"] == "engine"
    assert what in error["message"]
    assert hint in error["hint"]
