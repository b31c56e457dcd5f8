"""Files that are copied to a board are read once to compute their digests, however many jobs need them."""

from types import SimpleNamespace

import pytest

import runtimes.artifact
from edge.remote.install import Installer
from runtimes.artifact import Manifest, sha256
from runtimes.errors import InputError
from runtimes.standalone import receive


def test_an_artifact_is_hashed_once_for_all_jobs_of_a_command(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "model.null").write_bytes(b"0")
    runtimes.artifact.write(folder, Manifest("m", "null", "fp32", "model.null"), {}, {})
    files = [(f"a/{path.name}", path) for path in folder.iterdir()]
    name = f"artifacts/{receive.digest_of(files)[:16]}"
    installer = Installer(None, SimpleNamespace(have={name}), None)
    read: list[str] = []

    def counted(path):
        read.append(path.name)
        return sha256(path)

    monkeypatch.setattr(runtimes.artifact, "sha256", counted)
    monkeypatch.setattr(receive, "_file_digest", counted)
    for _ in range(3):
        assert name in installer.artifact(folder)
    assert read.count("model.null") == 1
    (folder / "model.null").write_bytes(b"another")
    with pytest.raises(InputError, match="changed since"):
        installer.artifact(folder)
