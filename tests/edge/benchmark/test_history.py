"""Measurements are kept, listed, shown, exported for `--compare`, and removed."""

from __future__ import annotations

import json
import sqlite3
import time
import zlib
from pathlib import Path

import pytest

import edge
from edge.benchmark import Measurement, Setup, history, rows_of
from edge.benchmark.rows import Row, read_rows
from edge.cli import main
from runtimes.errors import HostError, InputError

QUICK = ("--protocol", "published", "--runs", "3", "--rounds", "1")


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "data" / "history.sqlite"
    monkeypatch.setenv("EDGE_HISTORY", str(path))
    return path


def row(name: str, status: str = "ok") -> Row:
    values = {"status": status, "samples_ms": [1.0, 2.0, 3.0], "runtime": "null", "model_sha256": "ab" * 32}
    (found,) = rows_of([Measurement(setup=Setup(id=name, title=name, artifact=Path(name)), round=0, values=values)])
    return found


def test_rows_are_kept_in_order_with_every_sample() -> None:
    history.record([row("a"), row("b")])
    history.record([row("50%_c")])
    found = history.entries()
    assert [(one.id, one.setup, one.median_ms) for one in found] == [(1, "a", 2.0), (2, "b", 2.0), (3, "50%_c", 2.0)]
    assert found[0].model_sha256 == "ab" * 32
    assert abs(found[0].at - time.time()) < 3600
    assert history.rows([2])[0]["samples_ms"] == [1.0, 2.0, 3.0]
    assert [one.setup for one in history.entries(setup="%_")] == ["50%_c"]
    assert [one.setup for one in history.entries(last=2)] == ["b", "50%_c"]


def test_what_was_not_measured_is_not_kept(file: Path) -> None:
    failed = rows_of(
        [Measurement(setup=Setup(id="m", title="m", artifact=Path("m")), round=0, values={"status": "crashed"})]
    )
    history.record(failed)
    assert not file.exists()
    assert history.entries() == []


def test_old_ones_are_removed_by_time_or_by_number() -> None:
    history.record([row(name) for name in "abcd"])
    assert history.prune(keep=3) == 1
    assert [one.setup for one in history.entries()] == ["b", "c", "d"]
    assert history.prune(before=time.time() - 3600) == 0
    assert history.prune(before=time.time() + 3600) == 3
    assert history.prune(keep=1) == 0


def test_an_unknown_measurement_and_a_broken_file_are_one_clear_line(file: Path) -> None:
    with pytest.raises(InputError, match="no measurement 7"):
        history.rows([7])
    file.parent.mkdir()
    file.write_bytes(b"not a database, but long enough to be read as one" * 20)
    with pytest.raises(HostError, match="cannot be used: file is not a database") as caught:
        history.entries()
    assert "EDGE_HISTORY" in caught.value.hint


def test_a_history_of_a_newer_edge_is_left_alone(file: Path) -> None:
    history.record([row("a")])
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(HostError, match="newer edge"):
        history.entries()


def test_a_database_of_another_program_is_left_alone(file: Path) -> None:
    file.parent.mkdir()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE songs (title TEXT)")
    before = file.read_bytes()
    with pytest.raises(HostError, match="is a database of another program"):
        history.entries()
    history.record([row("a")])
    assert file.read_bytes() == before


def test_reading_writes_nothing(file: Path) -> None:
    history.record([row("a")])
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA user_version = 0")
    before, folder = file.read_bytes(), set(file.parent.iterdir())
    assert [one.setup for one in history.entries()] == ["a"]
    assert len(history.rows([1])) == 1
    assert (file.read_bytes(), set(file.parent.iterdir())) == (before, folder)
    file.write_bytes(b"")
    assert history.entries() == []
    assert file.read_bytes() == b""
    history.record([row("b")])
    assert [one.setup for one in history.entries()] == ["b"]


@pytest.mark.parametrize("content", [b"not compressed", zlib.compress(b"{broken"), zlib.compress(b"[1]"), None])
def test_a_damaged_row_is_named_and_costs_no_other(
    file: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    history.record([row("a"), row("b")])
    with sqlite3.connect(file) as database:
        database.execute("UPDATE measurements SET row = ? WHERE id = 1", [content if content is not None else 7])
    with pytest.raises(InputError, match="measurement 1 of the history is damaged"):
        history.rows([1])
    assert main(["history", "show", "1"]) == 3
    assert "measurement 1 of the history is damaged" in capsys.readouterr().err
    assert main(["history", "show", "2"]) == 0
    assert main(["history", "list"]) == 0
    out = file.parent / "report.html"
    assert main(["report", "--history", "--out", str(out)]) == 0
    assert "measurement 1 is not in the report" in capsys.readouterr().err
    assert "the history, 1 measurement" in out.read_text(encoding="utf-8")


def test_a_row_of_a_newer_edge_is_shown_by_what_is_known_of_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history.record([row("a")])
    values = {**row("a").to_json(), "new_key": {"x": [1]}, "samples_ms": [1.0, 2.0, 3.0]}
    with sqlite3.connect(file) as database:
        database.execute("UPDATE measurements SET row = ?", [zlib.compress(json.dumps(values).encode())])
    assert main(["history", "show"]) == 0
    assert "a" in capsys.readouterr().out
    assert main(["report", "--history", "--out", str(file.parent / "report.html")]) == 0


def test_a_history_that_cannot_be_written_does_not_cost_the_measurement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.null").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    monkeypatch.setenv("EDGE_HISTORY", str(tmp_path / "folder"))
    assert main(["bench", str(tmp_path / "m.null"), *QUICK]) == 0
    assert "the history was not written" in capsys.readouterr().err


def test_the_command_keeps_lists_shows_exports_and_removes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.null").write_bytes(b"x")
    assert main(["bench", "m.null", *QUICK]) == 0
    assert main(["bench", "m.null", *QUICK, "--no-history"]) == 0
    capsys.readouterr()
    assert main(["history", "list", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)
    assert (entry["id"], entry["setup"], entry["runtime"]) == (1, "m.null, null", "null")
    assert main(["history", "list"]) == 0
    assert "m.null, null" in capsys.readouterr().out
    assert main(["history", "show", "1"]) == 0
    assert "Median [ms]" in capsys.readouterr().out
    assert main(["history", "export", "1", "--out", "old.json"]) == 0
    assert len(read_rows(Path("old.json"))[0].samples_ms) == 3
    assert main(["history", "prune"]) == 2
    for words in (
        ["prune", "--keep", "1", "--setup", "m"],
        ["list", "1"],
        ["show", "--keep", "1"],
        ["show", "1", "--last", "2"],
    ):
        assert main(["history", *words]) == 2, words  # nothing is ignored, least of all what limits a removal
    assert len(history.entries()) == 1
    assert main(["history", "prune", "--keep", "1", "--json"]) == 0
    assert '{"removed": 0}' in capsys.readouterr().out


def test_nothing_is_kept_if_it_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HISTORY", "off")
    history.record([row("a")])
    assert history.entries() == []


def test_the_python_api_keeps_rows_unless_it_is_told_not_to() -> None:
    model = Path(__file__).parents[2] / "runtimes" / "models" / "null.null"
    options = edge.BenchOptions(protocol="published", runs=3, rounds=1)
    edge.bench(model, options, history=False)
    assert history.entries() == []
    edge.bench(model, options)
    assert [one.runtime for one in history.entries()] == ["null"]
