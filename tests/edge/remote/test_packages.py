"""Which packages a board gets for an engine, for its processor and its Python."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edge.remote import probe as surveying
from edge.remote.board import Board
from edge.remote.packages import check_edgetpu, engine_folders, fetch, folder_of, has_engine, packages
from edge.remote.probe import Python
from runtimes.errors import EngineMissingError, HostError, RefusedError

AARCH64, ARM = 183, 40  # e_machine in ELF files


def python(*version: int, bits: int = 64, modules: tuple[str, ...] = ()) -> Python:
    return Python(
        version=(*version, 0)[:3], path="/usr/bin/python3", bits=bits, modules=frozenset(modules), libc="glibc 2.31"
    )


def machines(folder: Path) -> set[int]:
    """The processors that the libraries below a folder are for."""
    return {struct.unpack_from("<H", path.read_bytes(), 18)[0] for path in folder.rglob("*.so*") if path.is_file()}


@pytest.mark.parametrize(
    ("there", "libedgetpu", "wanted"),
    [
        (python(3, 11), None, "ai-edge-litert"),
        (python(3, 8), None, "tflite-runtime"),
        (python(3, 11, bits=32), None, "tflite-runtime"),
        (python(3, 9), "16.0", "tflite-runtime<2.12"),
        (python(3, 10), "16.0tf2.17.1-1", "ai-edge-litert"),
        (python(3, 11), "16.0tf2.17.1-1", "ai-edge-litert"),
    ],
)
def test_the_interpreter_fits_the_python_and_the_edge_tpus_library(there, libedgetpu, wanted) -> None:
    assert packages("edgetpu", there, libedgetpu)[0] == wanted


@pytest.mark.parametrize("engine", ["litert", "edgetpu"])
def test_a_32_bit_python_that_is_too_new_is_refused_before_pip_is_asked(engine) -> None:
    with pytest.raises(RefusedError, match=rf"no {engine} for Python 3\.13 on a 32-bit system") as caught:
        packages(engine, python(3, 13, bits=32))
    assert "64-bit image" in caught.value.hint


@pytest.mark.parametrize(("version", "numpy"), [((3, 8), "numpy<1.24"), ((3, 10), "numpy<1.24"), ((3, 12), "numpy")])
def test_a_jetson_whose_tensorrt_has_no_numpy_beside_it_gets_one(version, numpy) -> None:
    there = python(*version, modules=("tensorrt",))
    assert not has_engine("tensorrt", there)
    assert packages("tensorrt", there) == (numpy,)


def test_a_board_without_tensorrt_says_where_it_comes_from() -> None:
    with pytest.raises(EngineMissingError, match=r"Python 3\.10\.0 has no tensorrt") as caught:
        packages("tensorrt", python(3, 10, modules=("numpy",)))
    assert "python3-libnvinfer" in caught.value.hint


def test_a_package_without_a_build_for_the_board_is_no_fault_of_the_network(tmp_path, monkeypatch) -> None:
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path), "PIP_CONFIG_FILE": os.devnull}
    for name, value in index.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(HostError, match="cannot be fetched") as caught:
        fetch(("thing",), "armv7l", python(3, 13), tmp_path / "out")
    assert caught.value.hint.startswith("no build is published for that Python and armv7l")


def test_an_edge_tpu_library_that_nothing_fits_is_reported_before_anything_crashes() -> None:
    with pytest.raises(RefusedError, match=r"16\.0 is Google's build, and no TFLite for Python 3\.11") as caught:
        packages("edgetpu", python(3, 11), "16.0")
    with pytest.raises(RefusedError):
        packages("edgetpu", python(3, 10), "16.0")
    assert "feranick" in caught.value.hint
    with pytest.raises(RefusedError, match="the installed ai-edge-litert crashes with it"):
        check_edgetpu(python(3, 9, modules=("numpy", "ai_edge_litert")), "16.0")
    check_edgetpu(python(3, 9, modules=("numpy", "ai_edge_litert")), "16.0tf2.17")
    check_edgetpu(python(3, 9, modules=("numpy", "pycoral")), "16.0")


@pytest.mark.parametrize(
    ("there", "machine", "processor"), [(python(3, 11), "aarch64", AARCH64), (python(3, 8), "aarch64", AARCH64)]
)
def test_an_engine_is_fetched_for_the_boards_processor_and_python(tmp_path, there, machine, processor) -> None:
    fetch(packages("litert", there), machine, there, tmp_path)
    assert machines(tmp_path) == {processor}
    tag = f"cpython-3{there.version[1]}-"
    assert all(tag in path.name for path in tmp_path.rglob("*.cpython-*.so"))
    assert has_engine("litert", python(3, modules=tuple(path.name for path in tmp_path.iterdir())))


def test_a_32_bit_board_has_its_own_numpy(tmp_path) -> None:
    there = python(3, 9, bits=32, modules=("numpy",))
    fetch(packages("litert", there), "armv7l", there, tmp_path)
    assert machines(tmp_path) == {ARM}
    assert not (tmp_path / "numpy").exists()
    with pytest.raises(RefusedError) as caught:
        fetch(packages("litert", there), "armv7l", python(3, 9, bits=32), tmp_path)
    assert "python3-numpy" in caught.value.hint


def test_an_interpreter_of_before_another_libedgetpu_is_not_used_any_more() -> None:
    there = python(3, 9)
    assert (
        folder_of("edgetpu", there, "16.0")
        != folder_of("edgetpu", there, "16.0tf2.17")
        == folder_of("edgetpu", there, None)
    )
    assert folder_of("litert", there, "16.0") == "engines/litert-py39"


def test_googles_interpreter_can_be_had(tmp_path) -> None:
    fetch(packages("edgetpu", python(3, 9), "16.0"), "aarch64", python(3, 9), tmp_path)
    assert machines(tmp_path) == {AARCH64}


def test_engines_of_another_python_are_none() -> None:
    have = {"engines/litert-py39", "engines/onnxruntime-py311", "runtimes/1-py311"}
    assert engine_folders(have, python(3, 11)) == ["engines/onnxruntime-py311"]


@pytest.mark.parametrize(("file", "counts"), [("__init__.py", False), ("utils/edgetpu.py", True)])
def test_the_pycoral_on_pythons_index_is_not_googles(tmp_path, file, counts) -> None:
    path = tmp_path / "pycoral" / file
    path.parent.mkdir(parents=True)
    path.touch()
    told = subprocess.run(
        [sys.executable, "-s", "-c", surveying._describe_python()],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(tmp_path)},
    )
    assert ("pycoral" in told.stdout) is counts


def test_what_a_worker_does_not_see_is_not_there(boards, tmp_path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "dpkg-query").write_text("#!/bin/sh\necho 'libedgetpu installed 16.0tf2.17.1-1.bookworm'\n")
    (tools / "dpkg-query").chmod(0o755)
    board = boards(environment={"PATH": f"{tools}:/usr/local/bin:/usr/bin:/bin"})
    for minor in range(8, 15):
        package = board.home / f".local/lib/python3.{minor}/site-packages/tensorrt/__init__.py"
        package.parent.mkdir(parents=True)
        package.touch()
    (board.home / "keras").mkdir()
    with Board(board.name) as place:
        assert not {"tensorrt", "keras"} & place.python.modules
        assert place.survey.libedgetpu == "16.0tf2.17.1-1.bookworm"
        status, out = place.line.run(place._environment([]) + "env")
    assert status == 0
    assert f"KERAS_HOME={board.home}/.edgeproof/cache" in out
