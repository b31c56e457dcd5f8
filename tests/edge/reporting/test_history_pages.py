"""The history in a report: each setup over time, and what changed where its latency stepped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import edge
from edge.benchmark import history
from edge.benchmark.history import Entry
from edge.benchmark.rows import Row
from edge.reporting.steps import series_of
from tests.edge.reporting.examples import NOON, row
from tests.edge.reporting.valid_html import faults


def entries(rows: list[Row]) -> list[Entry]:
    one = Entry(
        id=1,
        at=NOON,
        setup="m",
        host=None,
        machine=None,
        runtime="litert",
        runtime_version=None,
        precision=None,
        threads=None,
        model_sha256=None,
        edge_version=None,
        median_ms=1.0,
    )
    return [replace(one, id=place, at=NOON + 3600 * place) for place in range(len(rows))]


def steps(*rows: Row) -> list[tuple[int, str, tuple[str, ...]]]:
    (series,) = series_of(entries(list(rows)), list(rows))
    return [(one.place, one.verdict, one.changes) for one in series.steps]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"runtime_version": "2.4.0"}, "the engine's version: 2.3.0 → 2.4.0"),
        ({"edge_version": "0.2.0"}, "edge's version: 0.1.0 → 0.2.0"),
        ({"model_sha256": "ef" * 32}, "the model's digest: abababab → efefefef"),
        ({"conditions": {"governor": "powersave"}}, "the governor: performance → powersave"),
        ({"conditions": {"mhz": 1200.0}}, "the clock: 1800 → 1200 MHz"),
        ({"conditions": {"throttling": {"source": "x", "now": ["hot"]}}}, "throttling: it began"),
        ({"settings": {"int8": "fast"}}, "the settings: none → int8 fast"),
    ],
)
def test_what_changed_at_a_step_is_named(changes: dict[str, Any], expected: str) -> None:
    found = steps(row("m", 10.0, rounds=5), row("m", 10.0, rounds=5), row("m", 14.0, rounds=5, **changes))
    assert found == [(2, "slower", (expected,))]


def test_a_step_without_a_known_cause_is_a_step_and_equal_times_are_none() -> None:
    assert steps(row("m", 10.0, rounds=5), row("m", 8.0, rounds=5)) == [(1, "faster", ())]
    assert steps(row("m", 10.0, rounds=5), row("m", 10.05, rounds=5)) == []


def test_a_change_without_a_step_is_said_as_one() -> None:
    found = steps(row("m", 10.0, rounds=5), row("m", 10.0, rounds=5, edge_version="0.2.0"))
    assert found == [(1, "", ("edge's version: 0.1.0 → 0.2.0",))]


def test_single_rounds_need_a_large_step() -> None:
    assert steps(row("m", 10.0, rounds=1), row("m", 10.8, rounds=1)) == []
    assert steps(row("m", 10.0, rounds=1), row("m", 12.0, rounds=1)) == [(1, "slower", ())]


def test_machines_and_engines_are_series_of_their_own() -> None:
    rows = [row("m", 10.0), row("m", 50.0, host="pi"), row("m", 9.0, runtime="onnxruntime"), row("m", 10.0)]
    found = series_of(entries(rows), rows)
    assert [len(one.rows) for one in found] == [2, 1, 1]
    assert all(one.steps == [] for one in found)


def test_the_page_draws_the_history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGE_HISTORY", str(tmp_path / "h.sqlite"))
    history.record([row("m", 10.0, rounds=5), row("m", 14.0, rounds=5, runtime_version="2.4.0"), row("once", 3.0)])
    page = edge.report(history=True).html
    assert faults(page) == []
    part = page[page.index('id="history"') :]
    assert "<b>slower</b>" in part
    assert "the engine&#x27;s version: 2.3.0 → 2.4.0" in part
    assert "Measured once, or less often than these: 1 more." in part
    assert "edge history show 1 2" in part
