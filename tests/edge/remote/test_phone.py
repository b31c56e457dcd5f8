"""A phone with Termux as a board: a stand-in of its file layout, its Python on bionic, and its own ONNX Runtime.

The home is /data/data/com.termux/files/home, programs are in files/usr/bin, Python has `sys.getandroidapilevel` and no
`os.confstr`, and pip has no engines for it.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import sshd
from conftest import edge
from sshd import Board

ARTIFACTS = Path(__file__).parents[2] / "compatibility" / "artifacts"
_AS_ON_ANDROID = "import sys, os; sys.getandroidapilevel = lambda: 24; vars(os).pop('confstr_names', None)"


def _termux(files: Path, packages: tuple[str, ...]) -> Path:
    """Write the folder `usr` with a Python that has these packages, and Android's getprop; return usr/bin."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", files / "usr"], check=True)
    (site,) = (files / "usr" / "lib").glob("python3*/site-packages")
    (site / "android.pth").write_text(f"{_AS_ON_ANDROID}\n")
    for name in packages:
        found = importlib.util.find_spec(name)
        assert found is not None
        assert found.origin is not None
        folder = Path(found.origin).parent
        (site / name).symlink_to(folder)
        libraries = folder.with_name(f"{name}.libs")
        if libraries.is_dir():
            (site / libraries.name).symlink_to(libraries)
    getprop = files / "usr" / "bin" / "getprop"
    getprop.write_text('#!/bin/sh\n[ "$1" = ro.product.model ] && echo "Pixel 7"\n')
    getprop.chmod(0o755)
    return getprop.parent


@pytest.fixture
def phone(tmp_path: Path, sshd_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    pytest.importorskip("onnxruntime")
    files = tmp_path / "data" / "data" / "com.termux" / "files"
    programs = _termux(files, ("numpy", "onnxruntime"))
    path = {"PATH": f"{programs}:/usr/bin:/bin"}
    with sshd.running(files, sshd_cache, name="phone", environment=path) as board:
        monkeypatch.setenv("EDGE_SSH", f"ssh -F {board.config}")
        yield board


def test_termux_runs_and_verifies_a_model_with_its_own_engine(phone: Board) -> None:
    done = edge("deploy", ARTIFACTS / "onnx-fp32", phone.name, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["passed"]
    assert answer["board"].startswith("Pixel 7")
    assert not (phone.home / ".edgeproof" / "engines").exists()  # pip was not asked


def test_an_engine_that_android_lacks_is_named_with_the_one_that_it_has(phone: Board) -> None:
    done = edge("deploy", ARTIFACTS / "tflite-int8", phone.name)
    assert done.returncode == 5
    assert "PyPI has no litert for Android" in done.stderr
    assert "pkg install python-numpy python-onnxruntime" in done.stderr
