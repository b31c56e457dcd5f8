"""The real data of tests: where it is not named a test is skipped, and where it is named nothing may be missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.real_data import real_data


@pytest.mark.parametrize("folder", [None, ""])
def test_a_skip_names_the_file_and_the_variable(folder: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EDGE_DATA", raising=False)
    if folder is not None:
        monkeypatch.setenv("EDGE_DATA", folder)
    with pytest.raises(pytest.skip.Exception, match=r"needs llm/stories\.gguf: set EDGE_DATA"):
        real_data("llm/stories.gguf")


def test_a_file_that_is_missing_in_the_named_folder_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_DATA", str(tmp_path))
    assert real_data() == tmp_path
    with pytest.raises(AssertionError, match=r"stories\.gguf does not exist"):
        real_data("llm/stories.gguf")
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "stories.gguf").touch()
    assert real_data("llm/stories.gguf") == tmp_path / "llm" / "stories.gguf"
