"""One error of each branch: its exit status, and the last line of stderr with `--json`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Edge = Callable[..., "subprocess.CompletedProcess[str]"]
ONNX = "{artifacts}/onnx-fp32"

# Branch → exit status, the library that it needs, and the arguments.
ERRORS: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "usage": (2, "json", ("inspect", ONNX, "--no-such-option")),
    "input": (3, "json", ("inspect", "{artifacts}/onnx-fp32/missing.onnx")),
    "engine": (4, "ai_edge_litert", ("verify", "{artifacts}/edgetpu-int8")),
    "refused": (5, "onnx", ("convert", ONNX, "--for", "coral-usb", "--precision", "fp32", "--out", "{artifacts}/new")),
    "proof": (6, "onnxruntime", ("verify", "{wrong}")),
    "host": (7, "onnxruntime", ("deploy", ONNX, "board")),
    "worker": (8, "PIL", ("run", ONNX, "{picture}", "--timeout", "0.01")),
}


@pytest.fixture(scope="module")
def words(artifacts: Path, wrong: Path, picture: Path) -> Callable[[str], list[str]]:
    """Return the arguments for a branch, with paths."""
    places = {"{artifacts}": artifacts, "{wrong}": wrong, "{picture}": picture}

    def typed(branch: str) -> list[str]:
        pytest.importorskip(ERRORS[branch][1])
        found = list(ERRORS[branch][2])
        for mark, place in places.items():
            found = [word.replace(mark, str(place)) for word in found]
        return found

    return typed


@pytest.mark.parametrize("branch", ERRORS)
def test_machines_get_an_object_and_the_status(branch: str, words: Callable[[str], list[str]], edge: Edge) -> None:
    done = edge(*words(branch), "--json", EDGE_SSH="no-such-ssh")
    assert done.returncode == ERRORS[branch][0]
    error = json.loads(done.stderr.splitlines()[-1])
    assert error["error"] == branch
    assert error["message"]
    assert isinstance(error["hint"], str)


@pytest.mark.parametrize("branch", ERRORS)
def test_people_get_a_line_and_a_hint(branch: str, words: Callable[[str], list[str]], edge: Edge) -> None:
    done = edge(*words(branch), EDGE_SSH="no-such-ssh")
    assert done.returncode == ERRORS[branch][0]
    assert "\nedge: " in f"\n{done.stderr}"
    assert "Traceback" not in done.stderr
