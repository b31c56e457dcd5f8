"""Receiving a folder on a board: complete or not at all, also under the Python 3.6 of a Jetson Nano."""

import importlib.util
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from runtimes.standalone import receive
from runtimes.standalone.receive import TransferError, copy, digest_of, main, tree_digest


def archive(**files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        for name, content in files.items():
            info = tarfile.TarInfo(name.replace("__", "/"))
            info.size = len(content)
            packed.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def digest(tmp_path, **files):
    for name, content in files.items():
        path = tmp_path / "source" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tree_digest(tmp_path / "source")


def test_a_folder_arrives_whole_and_replaces_the_one_before(tmp_path):
    content = {"a__b": b"1", "c": b"22"}
    for _ in range(2):
        copy(tmp_path / "root", "kind/x", digest(tmp_path, **content), io.BytesIO(archive(**content)))
    found = {str(path.relative_to(tmp_path / "root")) for path in (tmp_path / "root").rglob("*") if path.is_file()}
    assert found == {"kind/x/a/b", "kind/x/c"}


@pytest.mark.parametrize("cut", [0, 100, 700, 1100])
def test_an_archive_that_breaks_off_leaves_nothing(tmp_path, cut):
    content = {"a": b"x" * 600}
    with pytest.raises(TransferError):
        copy(tmp_path / "root", "x", digest(tmp_path, **content), io.BytesIO(archive(**content)[:cut]))
    assert list((tmp_path / "root").iterdir()) == []


def test_other_bytes_than_announced_are_refused(tmp_path):
    with pytest.raises(TransferError, match="differs from what was sent"):
        copy(tmp_path / "root", "x", digest(tmp_path, a=b"1"), io.BytesIO(archive(a=b"2")))
    assert list((tmp_path / "root").iterdir()) == []


@pytest.mark.parametrize("name", ["/etc/x", "../x", "a/../../x"])
def test_no_name_leads_out_of_the_folder(tmp_path, name):
    with pytest.raises(TransferError, match="outside"):
        copy(tmp_path / "root", "x", "", io.BytesIO(archive(**{name: b"1"})))


def test_links_are_refused(tmp_path):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as packed:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc"
        packed.addfile(link)
    with pytest.raises(TransferError, match="neither file nor folder"):
        copy(tmp_path / "root", "x", "", io.BytesIO(stream.getvalue()))


def test_a_full_disk_is_an_answer(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(receive, "copy", full)
    assert main(["copy", str(tmp_path), "x", ""])["message"] == "the board's disk is full"


def test_the_digest_is_of_names_and_contents(tmp_path):
    digest(tmp_path, a=b"1", b__c=b"2")
    listed = [("b/c", tmp_path / "source/b/c"), ("a", tmp_path / "source/a")]
    assert digest_of(listed) == tree_digest(tmp_path / "source")
    assert digest_of([("z", tmp_path / "source/a"), listed[0]]) != digest_of(listed)


def test_it_runs_as_text_with_nothing_of_ours_to_import(tmp_path):
    text = Path(receive.__file__).read_text(encoding="utf-8")
    command = [sys.executable, "-I", "-c", text, "copy", str(tmp_path / "root"), "x", digest(tmp_path, a=b"1")]
    done = subprocess.run(command, input=archive(a=b"1"), stdout=subprocess.PIPE, check=True, cwd=str(tmp_path))
    assert json.loads(done.stdout.decode()) == {"ok": True}
    assert (tmp_path / "root/x/a").read_bytes() == b"1"


needs_pip = pytest.mark.skipif(importlib.util.find_spec("pip") is None, reason="this Python has no pip")


def wheel(folder):
    """A package of one module, as an index has it."""
    folder.mkdir()
    with zipfile.ZipFile(str(folder / "thing-1.0-py3-none-any.whl"), "w") as packed:
        packed.writestr("thing.py", "ANSWER = 42\n")
        packed.writestr("thing-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: thing\nVersion: 1.0\n")
        packed.writestr("thing-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        packed.writestr("thing-1.0.dist-info/RECORD", "")
    return folder


def pip_there(tmp_path, package, **environment):
    """The real pip, as a board runs it: a process whose stdin stays open while its caller is there."""
    text = Path(receive.__file__).read_text(encoding="utf-8")
    return subprocess.Popen(
        [sys.executable, "-c", text, "pip", str(tmp_path / "root"), "engines/x", package],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PIP_CONFIG_FILE": os.devnull, **environment},
    )


def answer_of(process):
    out = process.stdout.read()
    process.stdin.close()
    process.stdout.close()
    process.wait()
    return json.loads(out.decode().splitlines()[-1])


@needs_pip
def test_the_boards_pip_fills_a_folder_or_says_why_not(tmp_path):
    index = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheel(tmp_path / "wheels"))}
    assert answer_of(pip_there(tmp_path, "thing", **index)) == {"ok": True}
    assert (tmp_path / "root/engines/x/thing.py").read_text() == "ANSWER = 42\n"
    failed = answer_of(pip_there(tmp_path, "nothing", **index))
    assert failed["message"].startswith("the board's pip cannot install nothing: ERROR: No matching distribution")
    assert failed["hint"].startswith("no build is published for Python {}.{} with ".format(*sys.version_info))
    assert (tmp_path / "root/engines/x/thing.py").exists()  # what was there stays
    assert [path.name for path in (tmp_path / "root").iterdir()] == ["engines"]


@needs_pip
def test_an_index_that_does_not_answer_is_no_missing_build(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = f"http://127.0.0.1:{closed.getsockname()[1]}/simple"
    asked = {"PIP_INDEX_URL": address, "PIP_NO_INDEX": "0", "PIP_RETRIES": "1", "PIP_EXTRA_INDEX_URL": ""}
    failed = answer_of(pip_there(tmp_path, "thing", **asked))
    assert "--offline" in failed["hint"]


@needs_pip
def test_pip_is_stopped_when_its_caller_leaves(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/simple"
        asked = {"PIP_INDEX_URL": address, "PIP_DEFAULT_TIMEOUT": "600", "PIP_NO_INDEX": "0"}
        process = pip_there(tmp_path, "thing", **asked)
        line, _ = silent.accept()
        with line:
            process.stdin.close()
            process.wait(60)
    process.stdout.close()
    assert list((tmp_path / "root").iterdir()) == []
