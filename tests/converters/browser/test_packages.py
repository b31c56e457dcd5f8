"""The packages of the browser's engines: fetched by npm, checked by digest, with a clear error if that fails."""

from __future__ import annotations

import base64
import hashlib
import os
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from converters.browser.engines import ENGINES, LITERT_JS
from converters.browser.packages import archive_of, read_file
from runtimes.errors import EngineMissingError, HostError
from tests.npm import need_engines

FILE = LITERT_JS.builds["single"][0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "npm"


def _npm(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a stand-in for npm on PATH."""
    folder.mkdir()
    program = folder / "npm"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_every_file_there_is_is_in_its_package() -> None:
    need_engines()
    for engine in ENGINES.values():
        for file in engine.files(tuple(engine.builds)):
            content = read_file(file)
            assert len(content) == file.packed_bytes or file.is_packed, file.path


def test_without_npm_it_says_what_to_install_and_where_a_copy_would_go(cache, monkeypatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineMissingError, match=r"@litertjs/core@2\.5\.3, and npm is not installed") as caught:
        archive_of(FILE.package)
    assert "apt-get install npm" in caught.value.hint
    assert str(cache / "litertjs-core-2.5.3.tgz") in caught.value.hint


def test_without_network_it_repeats_what_npm_said(cache, tmp_path, monkeypatch) -> None:
    said = "echo 'npm error code ENOTFOUND' >&2; echo 'npm error network request failed' >&2; exit 1"
    _npm(tmp_path / "bin", said, monkeypatch)
    with pytest.raises(HostError, match=r"could not fetch @litertjs/core@2\.5\.3: network request failed") as caught:
        archive_of(FILE.package)
    assert "npm pack @litertjs/core@2.5.3" in caught.value.hint
    assert list(cache.iterdir()) == []


def test_another_package_of_that_name_is_refused(cache, tmp_path, monkeypatch) -> None:
    _npm(tmp_path / "bin", "echo other > litertjs-core-2.5.3.tgz", monkeypatch)
    with pytest.raises(HostError, match="its sha512 differs") as caught:
        archive_of(FILE.package)
    assert "delete it" in caught.value.hint


def test_a_copied_archive_is_used_without_npm(cache, tmp_path, monkeypatch) -> None:
    content = tmp_path / "index.js"
    content.write_text("export {};")
    cache.mkdir(parents=True)
    with tarfile.open(cache / FILE.package.archive, "w:gz") as archive:
        archive.add(content, f"package/{FILE.path}")
    digest = hashlib.sha512((cache / FILE.package.archive).read_bytes()).digest()
    pinned = replace(FILE.package, sha512=base64.b64encode(digest).decode())
    monkeypatch.setenv("PATH", "")
    assert read_file(replace(FILE, package=pinned)) == b"export {};"
