"""Small artifacts for the browser, a server for them, and access to what their page shows."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import edge
from edge.web.server import Server
from runtimes.artifact import Artifact
from tests.edge.web.page import Page
from tests.npm import need_engines

ROOT = Path(__file__).parents[3]
_MADE = ROOT / "tests" / "compatibility" / "artifacts"


def _converted(name: str, out: Path) -> Path:
    need_engines()
    return edge.convert(_MADE / name, out, device="browser", precision=name.rpartition("-")[2]).artifact


@pytest.fixture(scope="session")
def tflite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small int8 classifier of pictures, for LiteRT.js."""
    return _converted("tflite-int8", tmp_path_factory.mktemp("web") / "tflite")


@pytest.fixture(scope="session")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fp32 classifier of pictures, for ONNX Runtime Web."""
    return _converted("onnx-fp32", tmp_path_factory.mktemp("web") / "onnx")


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Copies an artifact and changes it: `changed(artifact, {"page/x.js": bytes}, is_signed=True)`."""

    def change(artifact: Path, files: dict[str, bytes], *, is_signed: bool = False) -> Path:
        copy = Path(shutil.copytree(artifact, tmp_path / f"copy-{len(list(tmp_path.iterdir()))}"))
        manifest = json.loads((copy / "manifest.json").read_text())
        for name, content in files.items():
            (copy / name).write_bytes(content)
            if is_signed:
                manifest["files"][name] = hashlib.sha256(content).hexdigest()
        (copy / "manifest.json").write_text(json.dumps(manifest))
        return copy

    return change


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., str]]:
    """Serves an artifact and returns the address: `serve(artifact, isolated=False)`."""
    with ExitStack() as stack:

        def start(artifact: Path, *, isolated: bool = True) -> str:
            server = stack.enter_context(Server(Artifact.open(artifact), isolated=isolated))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.port}/"

        yield start


@pytest.fixture(scope="module")
def driver(browser):
    return browser()


@pytest.fixture
def page(driver, until) -> Callable[..., Page]:
    """Opens a page: `page(address, script)`, where the script runs before those of the page."""
    return lambda address, script="": Page(driver, until, address, script)
