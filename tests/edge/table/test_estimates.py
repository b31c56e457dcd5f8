"""Estimated rows beside the published ones, marked as such, and the reason where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_profiles.published import published_row, published_rows
from edge.reporting.documents import content_of_rows
from edge.reporting.results import ESTIMATED, PUBLISHED
from edge.table.estimates import estimate_published, with_estimates
from edge.table.report import as_csv, as_markdown
from edge.table.rows import row_of_published


def on_pi_4():
    """A published row as if it were of a device that an estimate is possible for."""
    return replace(published_row("raspberry-pi-3b-plus-tflite"), profile="raspberry-pi-4", setup="Raspberry Pi 4")


def test_an_estimated_row_has_its_band_and_its_source() -> None:
    row = estimate_published(on_pi_4())
    assert (row.kind, row.setup) == ("estimated", "Raspberry Pi 4, estimated")
    assert row.estimate is not None
    assert (row.estimate.engine, row.estimate.precision) == ("litert", "int8")
    assert row.time_s == pytest.approx(0.25 * row.estimate.latency_ms)
    assert row.estimate.low_ms < row.estimate.latency_ms < row.estimate.high_ms
    assert row.source.startswith("estimated, ")
    document = row.to_json()
    assert document["url"].startswith("https://github.com/mlcommons/")
    assert document["estimate"]["latency_ms"] == row.estimate.latency_ms
    assert document["samples_ms"] == []


def test_each_published_row_is_followed_by_its_estimate_or_the_reason_why_there_is_none() -> None:
    rows = with_estimates([row_of_published(one) for one in published_rows()])
    assert len(rows) == 20
    for original, other in zip(rows[::2], rows[1::2], strict=True):
        assert original.kind == "published"
        assert other.id == f"{original.id}-estimated"
        assert other.kind == "estimated" or other.source.startswith("no estimate for ")


def test_text_and_csv_mark_it() -> None:
    rows = [row_of_published(on_pi_4()), estimate_published(on_pi_4())]
    line = as_markdown(rows, []).splitlines()[3]
    assert "Raspberry Pi 4, estimated" in line
    assert "| estimated, " in line
    assert ",estimated," in as_csv(rows).splitlines()[2]


def test_a_report_keeps_it_apart() -> None:
    rows = [row_of_published(published_row("jetson-nano")), estimate_published(on_pi_4())]
    found = content_of_rows([row.to_json() for row in rows])
    assert [one.kind for one in found.results] == [PUBLISHED, ESTIMATED]
    assert found.results[1].setup == "Raspberry Pi 4, estimated"
    assert "not measured" in dict(found.results[1].facts)["estimated"]


def test_a_setup_with_an_edge_tpu_has_the_estimate_of_one() -> None:
    row = estimate_published(published_row("i7-7700k+coral-usb"))
    assert row.estimate is not None
    assert row.estimate.engine == "edgetpu"
    # The published time is 0.71 s.
    assert row.estimate.low_ms < 710 / 250 < row.estimate.high_ms
    other = estimate_published(published_row("raspberry-pi-3b-plus+coral-usb"))
    assert other.kind == "absent"
    assert other.source.endswith("it needs 15 published models behind USB 2, and edge knows 7")
