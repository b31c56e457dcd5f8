"""The command line as other programs use it: processes, files and JSON, without imports from the project.

`answer` runs one of CASES, once for all tests. The models are those of `artifacts/`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SIDE = 8  # of the pictures that the artifacts classify
_TIMEOUT_S = 540  # less than pytest's own, so that the failure names the command

Answer = dict[str, Any]  # {"status": exit status, "stdout": JSON, "stderr": JSON of the last line or None}
Edge = Callable[..., "subprocess.CompletedProcess[str]"]

QUICK = ("--protocol", "published", "--runs", "3", "--rounds", "1")
TEXT = ("--prompt-tokens", "8", "--gen-tokens", "8", "--repeats", "2", "--threads", "1")
ONE_SETUP = ("--setup", "onnxruntime-fp32-1t", "--runs", "2", "--rounds", "1", "--json")

# Command → case → its arguments. {artifacts} is the folder of that name; the other words in braces are created below.
CASES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "devices": {
        "this machine": ("--json",),
        "a board": ("--on", "board", "--json"),
    },
    "inspect": {
        "a bare file": ("{artifacts}/keras-fp32/tiny.keras", "--json"),
        "an artifact": ("{artifacts}/tflite-int8", "--json"),
        "an Edge TPU model": ("{artifacts}/edgetpu-int8", "--json"),
        "a language model": ("{artifacts}/gguf-fp16", "--json"),
    },
    "check": {
        "a processor": ("{artifacts}/tflite-int8", "--for", "raspberry-pi-4", "--json"),
        "an Edge TPU": ("{artifacts}/tflite-int8", "--for", "coral-usb", "--json"),
        "an Edge TPU, before quantization": ("{artifacts}/onnx-fp32", "--for", "coral-usb", "--json"),
        "a Jetson": ("{artifacts}/onnx-fp32", "--for", "jetson-nano", "--json"),
        "a Movidius": ("{artifacts}/onnx-fp32", "--for", "ncs2", "--json"),
        "a language model": ("{artifacts}/gguf-fp16", "--for", "raspberry-pi-4", "--memory", "4GB", "--json"),
    },
    "convert": {
        "made-up inputs": ("{artifacts}/onnx-fp32", "--to", "openvino", "--out", "{out}/openvino", "--json"),
        "int8, with accuracy": (
            *("{artifacts}/onnx-fp32", "--to", "onnx", "--precision", "int8", "--calibration", "{calibration}"),
            *("--evaluate", "{evaluation}", "--max-drop", "0.5", "--out", "{out}/onnx-int8", "--json"),
        ),
        "for the Edge TPU, not compiled": (
            *("{artifacts}/tflite-int8", "--for", "coral-usb", "--out", "{out}/coral", "--json"),
        ),
        "a plan": ("{artifacts}/onnx-fp32", "--for", "jetson-nano", "--dry-run", "--json"),
        "a language model": ("{llama2c}", "--to", "gguf", "--precision", "q8_0", "--out", "{out}/gguf", "--json"),
        "a language model's plan": ("{llama2c}", "--to", "gguf", "--dry-run", "--json"),
    },
    "estimate": {"all devices": ("{artifacts}/onnx-fp32", "--all", "--json")},
    "quantize": {
        "with perplexity": (
            *("{artifacts}/gguf-fp16", "q8_0", "--text", "{text}", "--out", "{out}/q8_0.gguf", "--json"),
        ),
        "without": ("{artifacts}/gguf-fp16", "q4_0", "--out", "{out}/q4_0.gguf", "--json"),
    },
    "verify": {
        "right": ("{artifacts}/onnx-fp32", "--json"),
        "wrong": ("{wrong}", "--json"),
        "a language model": ("{artifacts}/gguf-fp16", "--json"),
    },
    "run": {
        "an artifact": ("{artifacts}/onnx-fp32", "{picture}", "--json"),
        "a bare file": (
            *("{artifacts}/onnx-fp32/tiny.onnx", "{picture}", "--preprocess", "keras-mobilenet-v2", "--json"),
        ),
    },
    "evaluate": {
        "two models": ("{artifacts}/onnx-fp32", "{artifacts}/onnx-int8", "--data", "{labeled}", "--json"),
    },
    "bench": {
        "measured": ("{artifacts}/onnx-fp32", *QUICK, "--json"),
        "steady, compared": (
            *("{artifacts}/onnx-fp32", "--seconds", "0.5", "--rounds", "2", "--compare", "{older}", "--json"),
        ),
        "not measured": ("{artifacts}/tensorrt-fp16", *QUICK, "--json"),
        "a language model": ("{artifacts}/gguf-fp16", *TEXT, "--json"),
    },
    "report": {"an artifact": ("{artifacts}/onnx-fp32", "--out", "{out}/report.html", "--json")},
    "tune": {
        "one engine": (
            *("{artifacts}/onnx-fp32", "--runtime", "onnxruntime", "--threads", "1", "--seconds", "0.2", "--json"),
        )
    },
    "history": {"removed": ("prune", "--keep", "1", "--json")},
    "table": {"one setup": ONE_SETUP},
    "deploy": {
        "an artifact": ("{artifacts}/onnx-fp32", "board", "--json"),
        "uninstalled": ("--uninstall", "board", "--json"),
    },
    "chat": {"one answer": ("{artifacts}/gguf-fp16", "a b c", "--template", "plain", "--max-tokens", "4", "--json")},
    "serve": {
        "with a new key": (
            "{artifacts}/gguf-fp16",
            "--host",
            "0.0.0.0",
            "--port",
            "0",
            "--template",
            "plain",
            "--json",
        ),
        "on loopback": ("{artifacts}/gguf-fp16", "--port", "0", "--template", "plain", "--json"),
    },
    "worker": {"ready": ("--port", "{port}", "--threads", "1", "--json")},
    "doctor": {"this machine": ("--json",), "a board": ("--on", "board", "--json")},
}
_STATUS = {("verify", "wrong"): (6,), ("bench", "not measured"): (4,), ("doctor", "this machine"): (0, 7)}
_STATUS |= {("doctor", "a board"): (0, 7), ("check", "an Edge TPU, before quantization"): (5,)}
_NEEDS = {
    "chat": ("llama_cpp", "jinja2"),
    "quantize": ("llama_cpp",),
    "serve": ("llama_cpp", "uvicorn"),
    "worker": ("llama_cpp",),
    "table": ("onnxruntime", "tf2onnx", "keras"),
    "run": ("onnxruntime", "PIL"),
    "evaluate": ("onnxruntime", "PIL"),
    "deploy": ("onnxruntime",),
    "a language model": ("llama_cpp", "gguf"),
    "made-up inputs": ("openvino", "onnxruntime"),
    "int8, with accuracy": ("onnx", "onnxruntime"),
    "for the Edge TPU, not compiled": ("ai_edge_litert",),
    "right": ("onnxruntime",),
    "wrong": ("onnxruntime",),
    "measured": ("onnxruntime",),
    "steady, compared": ("onnxruntime",),
}
_RUN_UNTIL_STOPPED = ("serve", "worker")

# Takes the place of ssh: the command runs here, in its own home folder. tests/edge/remote uses a real sshd.
_SSH = """#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in -o) shift 2;; -[MT]) shift;; --) shift; break;; *) break;; esac
done
shift
cd "{home}" && unset PYTHONPATH && HOME="{home}" PATH="{programs}:$PATH" exec /bin/sh -c "$*"
"""


@pytest.fixture(scope="session")
def edge() -> Edge:
    """Run one command with these arguments."""

    def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edge", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": _path(), **environment}
        return subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S
        )

    return run


def _path() -> str:
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Create the folder that the cases read and write in."""
    place = tmp_path_factory.mktemp("compatibility")
    (place / "out").mkdir()
    return place


@pytest.fixture(scope="session")
def artifacts(folder: Path) -> Path:
    """A copy of the artifacts: no command may change the committed ones."""
    return Path(shutil.copytree(HERE / "artifacts", folder / "artifacts"))


@pytest.fixture(scope="session")
def picture(folder: Path) -> Path:
    """A picture with colored corners."""
    image = pytest.importorskip("PIL.Image")
    corners = np.array([[[220, 30, 40], [40, 200, 60]], [[30, 60, 210], [240, 220, 30]]], np.uint8)
    path = folder / "picture.png"
    image.fromarray(corners.repeat(SIDE // 2, axis=0).repeat(SIDE // 2, axis=1)).save(path)
    return path


@pytest.fixture(scope="session")
def wrong(folder: Path, artifacts: Path) -> Path:
    """Create an artifact with wrong source outputs, but valid digests."""
    place = Path(shutil.copytree(artifacts / "onnx-fp32", folder / "wrong"))
    with np.load(place / "selfcheck.npz") as stored:
        arrays = {name: stored[name] + name.startswith("output:") for name in stored.files}
    np.savez(place / "selfcheck.npz", **arrays)
    manifest = json.loads((place / "manifest.json").read_text())
    manifest["files"]["selfcheck.npz"] = hashlib.sha256((place / "selfcheck.npz").read_bytes()).hexdigest()
    (place / "manifest.json").write_text(json.dumps(manifest))
    return place


@pytest.fixture(scope="session")
def ssh(folder: Path) -> str:
    """The value of EDGE_SSH under which every host is an empty home folder on this machine."""
    if sys.platform != "linux":
        pytest.skip("the stand-in for ssh is a script of /bin/sh, and boards run Linux")
    (folder / "board").mkdir()
    program = folder / "ssh"
    program.write_text(_SSH.format(home=folder / "board", programs=Path(sys.executable).parent))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return str(program)


@pytest.fixture(scope="session")
def answer(edge: Edge, folder: Path, artifacts: Path, request: pytest.FixtureRequest) -> Callable[[str, str], Answer]:
    """Return the answer to a case, which runs once; skip if its libraries are not installed."""
    done: dict[tuple[str, str], Answer] = {}
    makers = {
        "{picture}": lambda: request.getfixturevalue("picture"),
        "{calibration}": lambda: _inputs(folder / "calibration.npz", 1),
        "{evaluation}": lambda: _inputs(folder / "evaluation.npz", 2, labeled=True),
        "{labeled}": lambda: _labeled(folder / "labeled"),
        "{wrong}": lambda: request.getfixturevalue("wrong"),
        "{text}": lambda: _text(folder / "text.txt"),
        "{older}": lambda: _older(done, folder / "older.json", answer),
        "{llama2c}": lambda: _language_model(folder),
        "{port}": _free_port,
    }

    def word(text: str) -> str:
        if text in makers:
            return str(makers[text]())
        return text.replace("{artifacts}", str(artifacts)).replace("{out}", str(folder / "out"))

    def answer(command: str, case: str) -> Answer:
        if (command, case) not in done:
            for name in (*_NEEDS.get(command, ()), *_NEEDS.get(case, ())):
                if find_spec(name) is None:
                    pytest.skip(f"needs {name}")
            words = CASES[command][case]
            environment = {"EDGE_CACHE": str(folder / "cache"), "XDG_DATA_HOME": str(folder / "data")}
            environment["EDGE_SSH"] = request.getfixturevalue("ssh") if "board" in words else "ssh"
            if command == "table":  # without the real weights and pictures
                environment |= {"EDGE_DATA": str(folder / "none"), "KERAS_HOME": str(folder / "none")}
            typed = [command, *map(word, words)]
            ran = _first_line(typed, environment) if command in _RUN_UNTIL_STOPPED else edge(*typed, **environment)
            assert ran.returncode in _STATUS.get((command, case), (0,)), f"{' '.join(typed)}: {ran.stderr}"
            done[command, case] = _answered(ran)
        return done[command, case]

    return answer


def _answered(ran: subprocess.CompletedProcess[str]) -> Answer:
    last = (ran.stderr.strip().splitlines() or [""])[-1]
    error = json.loads(last) if last.startswith("{") else None
    return {"status": ran.returncode, "stdout": json.loads(ran.stdout), "stderr": error}


def _first_line(typed: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Return the first line of a command that runs until Ctrl+C; its status is 0 if it then ends with 130."""
    environment = {**os.environ, "PYTHONPATH": _path(), **environment}
    command = [sys.executable, "-m", "edge", *typed]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, words = process.communicate(timeout=60)
        status = 0 if process.returncode == 130 else process.returncode or 1
        return subprocess.CompletedProcess(command, status, line, words)


def _inputs(path: Path, seed: int, labeled: bool = False) -> Path:
    """Write colored patches for the classifier; most classes are its own outputs."""
    draw = np.random.default_rng(seed)
    colors = draw.uniform(-1, 1, (24, 2, 2, 3)).repeat(SIDE // 2, axis=1).repeat(SIDE // 2, axis=2)
    arrays = {"picture": colors.astype(np.float32)}
    if labeled:
        arrays["classes"] = np.arange(24) % 5
    np.savez(path, **arrays)
    return path


def _labeled(place: Path) -> Path:
    """Colored pictures in a folder for each of the five classes."""
    image = pytest.importorskip("PIL.Image")
    for number, color in enumerate(np.random.default_rng(3).integers(0, 256, (20, 3), np.uint8)):
        (place / str(number % 5)).mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((SIDE, SIDE, 3), color)).save(place / str(number % 5) / f"{number}.png")
    return place


def _text(path: Path) -> Path:
    path.write_text("a b c d e abc de cab " * 200, encoding="utf-8")
    return path


def _older(done: Mapping[tuple[str, str], Answer], path: Path, answer: Callable[[str, str], Answer]) -> Path:
    """Write the rows of another case as if they were from an earlier run."""
    answer("bench", "measured")
    path.write_text(json.dumps(done["bench", "measured"]["stdout"]), encoding="utf-8")
    return path


def _language_model(folder: Path) -> Path:
    """Write the checkpoint from which `gguf-fp16` was converted."""
    place = folder / "llama2c"
    if not place.exists():
        place.mkdir()
        script = f"import sys; sys.path.insert(0, {str(HERE)!r}); from pathlib import Path\n"
        script += f"import make_artifacts; make_artifacts.write_language_model(Path({str(place)!r}))"
        subprocess.run([sys.executable, "-c", script], check=True)
    return place / "tiny.bin"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
