"""A result is written completely or not at all."""

from __future__ import annotations

import pytest

from converters.pipeline.staging import ARTIFACT, failed_path, staging
from runtimes.artifact import MANIFEST
from runtimes.errors import HostError, ProofError, UsageError


def stage(out, content, error):
    with staging(out) as work:
        (work / ARTIFACT / "model").write_text(content)
        raise error


def test_the_result_is_what_lies_in_the_artifact_folder(tmp_path):
    out = tmp_path / "deep" / "out"
    with staging(out) as work:
        (work / "scratch").write_text("between")
        (work / ARTIFACT / "model").write_text("result")
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["model"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_nothing_is_left_after_an_interruption(tmp_path, error):
    with pytest.raises(error):
        stage(tmp_path / "out", "half", error)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_its_proof_is_kept_aside(tmp_path):
    for attempt in ("first", "second"):
        with pytest.raises(ProofError):
            stage(tmp_path / "out", attempt, ProofError("wrong"))
    assert [path.name for path in tmp_path.iterdir()] == ["out.failed"]
    assert (failed_path(tmp_path / "out") / "model").read_text() == "second"


def test_a_proof_that_fails_before_there_is_a_result_leaves_nothing(tmp_path):
    with pytest.raises(ProofError), staging(tmp_path / "out"):
        raise ProofError("the source answers every input with the same")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_artifact_is_replaced_only_by_force(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_text("old")
    with pytest.raises(UsageError, match="exists"), staging(out):
        pass
    with staging(out, force=True) as work:
        (work / ARTIFACT / "model").write_text("new")
    assert [path.name for path in out.iterdir()] == ["model"]


def test_force_does_not_replace_what_is_no_artifact(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "thesis")
    for name in ("thesis", "file", "link"):
        with pytest.raises(UsageError, match="not an artifact"), staging(tmp_path / name, force=True):
            pass
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"


def test_a_failed_replacement_keeps_the_old_artifact(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / MANIFEST).write_text("old")
    with pytest.raises(RuntimeError), staging(out, force=True):
        raise RuntimeError
    assert (out / MANIFEST).read_text() == "old"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(HostError, match="cannot be written"), staging(tmp_path / "file" / "out"):
        pass
