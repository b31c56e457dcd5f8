"""A Movidius stick on a board, with an unpacked archive of OpenVINO; a stand-in for it here."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from conftest import edge

from edge.remote import probe
from runtimes.board.report import movidius_archive

# What the archive's script does, in bash as there; the module has the interface of OpenVINO 2022.
SETUPVARS = """#!/bin/bash
export INTEL_OPENVINO_DIR="$( cd "$( dirname "${BASH_SOURCE[0]}" )" && pwd )"
export PYTHONPATH="$INTEL_OPENVINO_DIR/python${PYTHONPATH:+:$PYTHONPATH}"
while [ $# -gt 0 ]; do shift; done
echo "[setupvars.sh] OpenVINO environment initialized"
"""
RUNTIME = """
import numpy as np

class Size:
    is_static = True
    def __init__(self, size): self._size = size
    def get_length(self): return self._size

class Port:
    def get_names(self): return {"x"}
    def get_any_name(self): return "x"
    def get_partial_shape(self): return [Size(1), Size(3)]
    def get_element_type(self): return self
    def to_dtype(self): return np.dtype(np.float32)

class Compiled:
    inputs = outputs = [Port()]
    def create_infer_request(self): return self
    def get_property(self, name): raise RuntimeError(name)
    def infer(self, feeds): return {"x": 2 * feeds[0]}

class Core:
    available_devices = ["CPU", "MYRIAD"]
    def read_model(self, path): return path
    def compile_model(self, model, device, config):
        assert (device, config) == ("MYRIAD", {}), (device, config)
        return Compiled()
"""


def unpack(board):
    archive = board.home / "openvino_2022"
    (archive / "python" / "openvino" / "runtime").mkdir(parents=True)
    (archive / "setupvars.sh").write_text(SETUPVARS)
    (archive / "python" / "openvino" / "__init__.py").write_text("")
    (archive / "python" / "openvino" / "runtime" / "__init__.py").write_text(RUNTIME)


def bench(tmp_path):
    (tmp_path / "m.xml").write_text("<net/>")
    (tmp_path / "m.bin").write_bytes(b"")
    words = ("--on", "board", "--device", "myriad", "--protocol", "published", "--runs", "3", "--rounds", "1", "--json")
    done = edge("bench", tmp_path / "m.xml", *words)
    (row,) = json.loads(done.stdout)
    return row


@pytest.fixture
def home(tmp_path):
    """A home folder with archives of Intel's: one of 2022 with the plugin, and one without it that comes first."""
    for name, plugin in (("openvino_2022", "openvino_intel_myriad_plugin"), ("intel/openvino_2021", "myriadPlugin")):
        library = tmp_path / name / "runtime/lib/aarch64" / f"lib{plugin}.so"
        library.parent.mkdir(parents=True)
        library.touch()
    (tmp_path / "openvino_2022" / "setupvars.sh").touch()
    (tmp_path / "intel/openvino_2021/bin").mkdir()
    (tmp_path / "intel/openvino_2021/bin/setupvars.sh").touch()
    return tmp_path


def taken(home, environ):
    """What a measurement on a board with this home folder would take."""
    done = subprocess.run(
        ["/bin/sh", "-c", probe._script()], env={**os.environ, **environ, "HOME": str(home)}, stdout=subprocess.PIPE,
        text=True, check=True, cwd=home,
    )  # fmt: skip
    return next((line.split()[1] for line in done.stdout.splitlines() if line.startswith("openvino ")), None)


def test_doctor_looks_for_the_archive_where_a_measurement_does(home):
    first, second = home / "intel/openvino_2021/bin/setupvars.sh", home / "openvino_2022/setupvars.sh"
    assert taken(home, {}) == str(first)
    assert movidius_archive(home, {}, home) is None  # the first has no plugin of 2022
    named = {"INTEL_OPENVINO_DIR": str(home / "openvino_2022")}
    assert movidius_archive(home, named, home) == taken(home, named) == str(second)
    first.unlink()
    assert movidius_archive(home, {}, home) == taken(home, {}) == str(second)
    second.unlink()
    assert movidius_archive(home, {}, home) is taken(home, {}) is None


def test_a_board_without_the_archive_says_what_to_install(board, tmp_path):
    row = bench(tmp_path)
    assert row["status"] == "unsupported", row["message"]
    assert "no OpenVINO that supports a Movidius stick" in row["message"]
    assert "2022.3.1" in row["hint"]


def test_the_users_archive_runs_the_stick(board, tmp_path):
    unpack(board)
    row = bench(tmp_path)
    assert row["status"] == "ok", row["message"]
    assert (row["runtime"], row["device"], len(row["samples_ms"])) == ("openvino", "myriad", 3)
