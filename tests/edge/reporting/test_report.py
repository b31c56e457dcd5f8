"""The report: one HTML file that is valid, loads nothing, and whose every number can be traced and repeated."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path

import pytest

import edge
from edge.benchmark import history
from edge.cli import _parser, main
from edge.reporting.charts import best_points
from edge.reporting.documents import content_of_rows
from edge.reporting.report import lay_out_report
from runtimes.errors import InputError
from tests.edge.reporting.examples import bench_document, profile, row, table_document
from tests.edge.reporting.valid_html import faults

ARTIFACTS = Path(__file__).parents[2] / "compatibility" / "artifacts"
MAX_BYTES = 500_000


@pytest.fixture(autouse=True)
def no_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HISTORY", str(tmp_path / "history.sqlite"))


def write(path: Path, document: object) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def page_of(*rows: object) -> str:
    return lay_out_report(content_of_rows(bench_document(rows)), "Test", "edge report").html  # type: ignore[arg-type]


def commands(page: str) -> list[list[str]]:
    return [shlex.split(html.unescape(one)) for one in re.findall(r"<code>(.*?)</code>", page)]


def test_the_whole_table_is_one_small_valid_file_that_loads_nothing(tmp_path: Path) -> None:
    files = [write(tmp_path / "table.json", table_document()), ARTIFACTS / "onnx-fp32", ARTIFACTS / "tflite-int8"]
    found = edge.report(files, title="MobileNetV2")
    assert faults(found.html) == []
    assert len(found.html.encode()) < MAX_BYTES
    assert "<script" not in found.html
    expected = ("results", "latency", "distributions", "accuracy", "energy", "operators", "conversions", "made")
    assert found.sections == expected
    assert found.kinds == {"published": 10, "measured": 22, "estimated": 0, "not measured": 1}


def test_published_measured_estimated_and_missing_rows_are_apart(tmp_path: Path) -> None:
    estimates = edge.estimate(ARTIFACTS / "tflite-int8", "raspberry-pi-4", precision="int8").to_json()
    files = [write(tmp_path / "t.json", table_document(measured=2)), write(tmp_path / "e.json", estimates)]
    page = edge.report(files).html
    titles = ["Published by others", "Measured<", "Estimated from published rows", "Not measured"]
    places = [page.index(title) for title in titles]
    assert places == sorted(places)
    published, measured, estimated, missing = (page[a:b] for a, b in zip(places, [*places[1:], None], strict=True))
    assert "Jetson Nano" in published
    assert "Jetson Nano" not in measured
    assert "variant 1" in measured
    assert "on raspberry-pi-4" in estimated
    assert "needs a Coral" in missing


def test_every_figure_names_rows_and_every_row_names_what_made_it_and_repeats_it(tmp_path: Path) -> None:
    page = edge.report([write(tmp_path / "table.json", table_document())]).html
    for figure in re.findall(r"<figure.*?</figure>", page, re.S):
        assert re.search(r'href="#row-\d+"', figure.partition("<figcaption>")[2]), figure[:80]
    made = page[page.index('id="made"') :]
    rows = re.split(r'<h3 id="row-\d+">', made)[1:]
    assert len(rows) == 33
    for one in rows:
        assert "needs a Coral" in one or "<dt>repeat</dt><dd><code>edge " in one
        assert "needs a Coral" in one or "2019" in one or ("litert 2.3.0" in one and "ab" * 32 in one)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"threads": None, "device": "gpu", "settings": {"int8": "fast"}, "batch": 4},
        {"host": "pi@board", "protocol": {"name": "steady", "max_s": 30.0}},
        {"profile": profile(3), "throughput": {"streams": 2, "threads": 1, "fps": 9.0, "runs": 90, "seconds": 10.0}},
    ],
)
def test_the_command_of_a_row_is_one_that_edge_takes(changes: dict[str, object]) -> None:
    (command,) = (one for one in commands(page_of(row("a model", 3.0, **changes))) if one[:2] == ["edge", "bench"])
    parsed = _parser("bench").parse_args(command[1:])
    assert parsed.artifacts == [Path("out/a model")]
    assert parsed.threads == ([1] if changes.get("threads", 1) else None)
    assert parsed.set == [f"{key}={value}" for key, value in dict(changes.get("settings", {})).items()]  # type: ignore[call-overload]
    assert parsed.on == ([changes["host"]] if "host" in changes else [])
    assert parsed.rounds == 2


def test_names_from_files_cannot_write_html() -> None:
    hostile = '<script>alert(1)</script>"\x00\x1b[31m&'
    page = page_of(row(hostile, 3.0, artifact=hostile, settings={hostile: hostile}), row(f"{hostile}2", 4.0))
    assert faults(page) == []
    assert "<script" not in page
    assert "\x00" not in page


def test_boards_stand_side_by_side() -> None:
    board = {"board": "Raspberry Pi 4 Model B", "logical_cores": 4, "os": "Raspberry Pi OS"}
    page = page_of(
        row("m-int8, 1 thread", 12.0), row("pi, m-int8, 1 thread", 52.0, host="pi", machine=board), row("alone", 1.0)
    )
    table = page[page.index('id="boards"') : page.index('id="made"')]
    assert "AMD EPYC" in table
    assert "pi: Raspberry Pi 4 Model B" in table
    assert re.search(r"m-int8, 1 thread</th><td[^>]*>12\.\d+ .*52\.", table)
    assert "alone" not in table
    assert 'id="boards"' not in page_of(row("a", 1.0), row("b", 2.0))


def test_the_frontier_holds_what_nothing_beats_in_both() -> None:
    assert best_points([(1.0, 0.5), (2.0, 0.7), (3.0, 0.6), (0.5, 0.4), (2.0, 0.6)]) == [True, True, False, True, False]
    assert best_points([(1.0, 0.5), (1.0, 0.5)]) == [True, False]
    assert best_points([(1.0, 0.5), (2.0, 0.5)]) == [True, False]


def test_accuracy_comes_from_the_evaluation_of_the_same_artifact(tmp_path: Path) -> None:
    evaluated = {
        "data": "pictures",
        "models": [
            {
                "artifact": "elsewhere/m-int8",
                "runtime": "litert",
                "inputs": 200,
                "metrics": {"top1": 0.87, "top5": 1.0},
            },
            {"artifact": "m-fp32", "runtime": "onnxruntime", "inputs": 200, "metrics": {"top1": 0.99}},
        ],
    }
    rows = bench_document([row("m-int8", 12.0), row("m-fp32", 20.0)])
    page = edge.report([write(tmp_path / "b.json", rows), write(tmp_path / "e.json", evaluated)]).html
    assert "87.0%" in page
    assert "99.0%" not in page  # another engine than the one that was measured


def test_a_failed_proof_is_said(tmp_path: Path) -> None:
    document = {
        "artifact": str(tmp_path / "gone.failed"),
        "format": "onnx",
        "precision": "int8",
        "files": [],
        "proof": {"passed": False, "metrics": {"cosine": 0.2}, "limits": {"cosine": 0.97}, "samples": 3},
    }
    page = edge.report([write(tmp_path / "c.json", document)]).html
    assert ">FAILED<" in page
    assert "cosine 0.2" in page


def test_without_files_it_shows_the_published_table_and_the_newest_of_the_history() -> None:
    history.record([row("m", 9.0), row("m", 8.0), row("n", 5.0)])
    found = edge.report()
    assert found.kinds["published"] == 10
    assert found.kinds["measured"] == 2
    assert "8.03" in found.html
    assert "9.03" not in found.html


def test_the_command_writes_the_page_and_says_so_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "page.html"
    assert main(["report", str(ARTIFACTS / "onnx-fp32"), "--out", str(out), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["bytes"] == out.stat().st_size
    assert answer["sections"] == ["conversions"]
    assert faults(out.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("not json", "is not JSON"),
        ('{"machine": {}}', "holds nothing that a report shows"),
        ("[1]", "is 1, not an object"),
        ('[{"setup": 3}]', "'[0].setup' is 3, not text"),
        ('[{"kind": "published", "id": "pi-9"}]', "'[0].id' is 'pi-9', which is not a published row"),
        (
            '{"artifact": "a", "format": "onnx", "precision": "fp32", "files": [], "proof": {"metrics": {"snr": 1%s}}}'
            % ("0" * 400),
            "too large a number",
        ),
        ('{"estimates": [{}], "model": "m"}', "missing value in 'estimates[0].device'"),
    ],
)
def test_a_file_that_is_none_of_them_is_one_clear_line(content: str, expected: str, tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(InputError, match=re.escape(expected)) as caught:
        edge.report([path])
    assert caught.value.hint


def test_nothing_is_overwritten_or_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.json", [])
    assert main(["report", str(path), "--out", str(path)]) == 2
    assert "would be overwritten" in capsys.readouterr().err
    assert main(["report", str(tmp_path / "none.json")]) == 3
    assert main(["report", str(path), "--out", str(tmp_path / "no" / "x.html")]) == 3
    assert main(["report", str(tmp_path)]) == 3
    assert "is not an artifact with a proof" in capsys.readouterr().err


def test_bench_and_table_print_pages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "bench.html"
    model = str(ARTIFACTS / "onnx-fp32")
    quick = ["--protocol", "published", "--runs", "8", "--rounds", "2", "--threads", "1", "--profile"]
    assert main(["bench", model, *quick, "--out", str(out)]) == 0
    page = out.read_text("utf-8")
    assert faults(page) == []
    assert 'id="operators"' in page
    assert 'id="conversions"' in page  # the proof of the measured artifact
    assert ["edge", "bench", model, *quick, "--out", str(out)] in commands(page)
    assert "onnx-fp32" in capsys.readouterr().out  # the text is printed beside


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("<p>a<p>b</p></p>", "the block <p>"),
        ("<div>", "</body> within"),
        ('<a href="#nowhere">x</a>', "nothing has the id nowhere"),
        ('<p id="a">x</p><p id="a">y</p>', "two ids a"),
        ('<img src="x.png">', "<img> loads"),
        ("<style>p { background: url(x.png) }</style>", "the style loads"),
        ("<table><tr><td>x</td></tr></table>", "<tr> in <table>"),
        ('<p onclick="x">x</p>', "<p onclick>"),
        ('<svg><text x="nan">x</text></svg>', "not a number"),
    ],
)
def test_faults_of_a_page_are_found(fault: str, expected: str) -> None:
    page = f"<!DOCTYPE html><html><head><title>x</title></head><body>{fault}</body></html>"
    assert any(expected in one for one in faults(page)), faults(page)
    assert faults(page.replace(fault, "<p>right</p>")) == []
