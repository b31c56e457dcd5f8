"""Boards for the tests: a real sshd on loopback, an empty home, and the engines that were installed once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode knows no sibling modules
import sshd
from sshd import Board

from tests.parallel import made_once

FEW = {"name": "published", "runs": 5, "pause_s": 0}
MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "litert.tflite"


@pytest.fixture(scope="session")
def sshd_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for an unpacked sshd, if the system has none."""
    return made_once(tmp_path_factory, "sshd", sshd.binary)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory, sshd_cache: Path) -> Path:
    """The engines of a board on which `edge deploy` has installed LiteRT."""
    folder = made_once(tmp_path_factory, "installed", lambda folder: _install(folder / "board", sshd_cache))
    return folder / "board" / "home" / ".edgeproof" / "engines"


def _install(folder: Path, sshd_cache: Path) -> None:
    from edge.remote.board import Board as RemoteBoard

    with pytest.MonkeyPatch.context() as patch, sshd.running(folder, sshd_cache) as board:
        patch.setenv("EDGE_SSH", f"ssh -F {board.config}")
        with RemoteBoard(board.name, offline=True) as place:
            if sys.platform != "linux" or place.survey.machine != "x86_64":
                pytest.skip("the loopback board is for x86-64 Linux")
            folder_there = place.installer.engine("litert", offline=True)
            # Its bytecode, once for all tests.
            load = f'{place.python.path} -c "import ai_edge_litert.interpreter"'
            assert place.line.run(f'PYTHONPATH="$HOME"/{folder_there} {load}')[0] == 0
    engines = folder / "home" / ".edgeproof" / "engines"
    (litert,) = engines.iterdir()
    null = engines / litert.name.replace("litert", "null")  # numpy is all that it needs
    null.mkdir()
    for part in litert.glob("numpy*"):
        subprocess.run(["cp", "-al", part, null], check=True)


Boards = Callable[..., Board]


@pytest.fixture
def boards(tmp_path: Path, sshd_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Boards]:
    """Return a function that starts boards, which edge's `ssh` can reach by name."""
    configs: list[Path] = []
    with ExitStack() as stack:

        def start(name: str = "board", engines: Path | None = None, **options: object) -> Board:
            board = stack.enter_context(sshd.running(tmp_path / name, sshd_cache, name=name, **options))
            if engines is not None:
                (board.home / ".edgeproof").mkdir()
                subprocess.run(["cp", "-al", engines, board.home / ".edgeproof"], check=True)
            configs.append(board.config)
            together = tmp_path / "ssh_config"
            together.write_text("".join(config.read_text() for config in configs))
            monkeypatch.setenv("EDGE_SSH", f"ssh -F {together}")
            return board

        yield start


@pytest.fixture
def board(boards: Boards, installed: Path) -> Board:
    """A board that has its engines, and nothing else."""
    return boards(engines=installed)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A small int8 TFLite model as an artifact whose self-check has the exact outputs of LiteRT on this machine."""
    pytest.importorskip("ai_edge_litert")
    import numpy as np

    from runtimes import artifact as artifacts
    from runtimes import registry
    from runtimes.artifact import Artifact, Manifest, SelfCheck
    from runtimes.session import RunOptions
    from runtimes.verification.selfcheck import answers

    folder = tmp_path / "model-tflite"
    folder.mkdir()
    shutil.copy(MODEL, folder)
    session = registry.for_format("tflite").open(Artifact.open(MODEL), RunOptions())
    draw = np.random.default_rng(3)
    shapes = {one.name: [size if isinstance(size, int) else 1 for size in one.shape] for one in session.inputs}
    inputs = {name: draw.normal(size=(4, *shape)).astype(np.float32) for name, shape in shapes.items()}
    manifest = Manifest("model", "tflite", "fp32", MODEL.name, selfcheck=SelfCheck("max_abs", 1e-6, "synthetic"))
    artifacts.write(folder, manifest, inputs, answers(session, inputs))
    session.close()
    return folder


def edge(*words: object, timeout: float = 300, **environment: str) -> subprocess.CompletedProcess[str]:
    """Return a function that runs the command line like a user; `timeout` in seconds."""
    command = [sys.executable, "-m", "edge", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, **environment}, timeout=timeout
    )
