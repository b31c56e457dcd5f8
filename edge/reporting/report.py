"""Make a report: one HTML file from the JSON of other commands, artifacts, and the history."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.reporting.charts import Moment, draw_timeline
from edge.reporting.documents import Content, ProvenConversion, read
from edge.reporting.page import Cell, Section, code, definitions, figure, page, picture, table
from edge.reporting.results import KINDS, ReportedResult
from edge.reporting.sections import latency_chart, legend, made_section, result_sections
from edge.reporting.steps import LatencyStep, Series, format_time, series_of
from edge.reporting.svg import WIDE, escape, format_number
from runtimes.artifact.json_fields import JsonObject

_MAX_SERIES = 40  # the longest series of the history; the others are counted


@dataclass(frozen=True, kw_only=True)
class ReportPage:
    """A report.

    html: The page.
    picture: A page of the figure of latencies alone, with its width and height in pixels; None without latencies.
    kinds: Kind of number → how many rows it has.
    sections: The ids of the page's sections.
    sources: What was read.
    """

    html: str
    picture: tuple[str, int, int] | None
    kinds: dict[str, int]
    sections: tuple[str, ...]
    sources: tuple[str, ...]

    def to_json(self) -> JsonObject:
        """Return what `edge report --json` prints, without the file's name."""
        return {
            "bytes": len(self.html.encode()),
            "rows": dict(self.kinds),
            "sections": list(self.sections),
            "sources": list(self.sources),
        }


def make_report(files: Sequence[Path], *, with_history: bool = False, title: str = "Measurements") -> ReportPage:
    """Make the report of files; without any, of the published table and this machine's newest measurements."""
    command = ["edge", "report", *map(str, files), *(["--history"] if with_history else [])]
    return lay_out_report(read(files, with_history=with_history), title, shlex.join(command))


def lay_out_report(content: Content, title: str, command: str) -> ReportPage:
    """Lay out the report of some content; `command` is what makes it again."""
    results = sorted(content.results, key=lambda one: KINDS.index(one.kind))
    sections = [
        *result_sections(results, content.notes),
        *_conversions(content.conversions),
        *_history(series_of(content.entries, content.recorded)),
    ]
    if results:
        sections.append(made_section(results))
    kinds = {kind: sum(one.kind == kind for one in results) for kind in KINDS}
    counts = [f"{count} {kind}" for kind, count in kinds.items() if count]
    lead = [
        f"Rows: {', '.join(counts) or 'none'}. Conversions: {len(content.conversions) or 'none'}. "
        "What was published by others, measured and estimated is marked as such and never mixed.",
        f"Made by {code(command)}" + "".join(f"<br>from {escape(source)}" for source in content.sources),
    ]
    return ReportPage(
        html=page(title, lead, sections),
        picture=_picture(results, title),
        kinds=kinds,
        sections=tuple(one.id for one in sections),
        sources=tuple(content.sources),
    )


def _picture(results: Sequence[ReportedResult], title: str) -> tuple[str, int, int] | None:
    timed = [(place, one) for place, one in enumerate(results, start=1) if one.latency_ms]
    if not timed:
        return None
    drawing = latency_chart(timed)(WIDE)
    margin, legend_height = 16, 40
    key = f'<div style="height: {legend_height}px">{legend({one.kind for _, one in timed})}</div>'
    body = key + drawing.render("latency", title, "")
    return picture(body, margin), int(drawing.width) + 2 * margin, int(drawing.height) + legend_height + 2 * margin


def _conversions(conversions: Sequence[ProvenConversion]) -> Iterator[Section]:
    if not conversions:
        return
    lines = []
    for one in conversions:
        inputs = "made-up inputs" if one.inputs == "synthetic" else one.inputs or "inputs"
        values = ", ".join(f"{key} {value:.4g}" for key, value in one.metrics.items())
        limits = ", ".join(f"{key} {value:.4g}" for key, value in one.limits.items())
        verdict = Cell(text="passed", style="good") if one.passed else Cell(text="FAILED", style="bad")
        lines.append(
            [
                Cell(text=escape(one.name)),
                Cell(text=escape(one.format)),
                Cell(text=escape(one.precision)),
                verdict,
                Cell(text=escape(values)),
                Cell(text=escape(limits)),
                Cell(text=escape(f"{one.samples} samples, {inputs}")),
            ]
        )
    columns = [(name, False) for name in ("Artifact", "Format", "Precision", "Proof", "Values", "Limits", "Evidence")]
    made = "".join(
        f"<h3>{escape(one.name)}</h3>"
        + definitions([*((name, escape(value)) for name, value in one.facts), ("repeat", code(one.command))])
        for one in conversions
    )
    caption = "The outputs of the artifact and of its source for the same inputs."
    yield Section(
        id="conversions", title="Conversions and their proofs", body=table(caption, columns, [("", lines)]) + made
    )


def _history(series: Sequence[Series]) -> Iterator[Section]:
    if not series:
        return
    shown = [one for one in series if len(one.rows) > 1][:_MAX_SERIES]
    rest = len(series) - len(shown)
    body = "".join(_one_series(place, one) for place, one in enumerate(shown, start=1))
    if rest:
        body += f'<p class="soft">Measured once, or less often than these: {rest} more.</p>'
    yield Section(id="history", title="History", body=body)


def _one_series(place: int, series: Series) -> str:
    marks = {step.place: number_ for number_, step in enumerate(series.steps, start=1)}
    moments = [
        Moment(at=entry.at, value=row.median_ms or 0.0, low=row.low_ms, high=row.high_ms, change=marks.get(at, 0))
        for at, (entry, row) in enumerate(zip(series.entries, series.rows, strict=True))
        if row.median_ms
    ]
    if not moments:
        return ""
    dates = format_time(series.entries[0].at), format_time(series.entries[-1].at)
    title = f"{series.setup} on {series.machine}"
    caption = f"Median of each measurement with its 95 % interval. Repeat: {code('edge history show ' + _ids(series))}"
    steps = "".join(f"<li>{_sentence(step, series)}</li>" for step in series.steps)
    return (
        f"<h3>{escape(title)}</h3>"
        + figure(
            f"history-{place}",
            f"Latency of {title}",
            lambda width: draw_timeline(moments, dates, "ms", width),
            f"{len(moments)} measurements from {dates[0]} to {dates[1]}.",
            caption,
        )
        + (f"<ol>{steps}</ol>" if steps else '<p class="soft">No step, and nothing that edge records changed.</p>')
    )


def _ids(series: Series) -> str:
    return " ".join(str(entry.id) for entry in series.entries[-10:])


def _sentence(step: LatencyStep, series: Series) -> str:
    when = format_time(series.entries[step.place].at)
    before, after = series.rows[step.place - 1].median_ms or 0.0, series.rows[step.place].median_ms or 0.0
    times = f"{format_number(before)} → {format_number(after)} ms ({step.ratio - 1:+.1%})"
    cause = "; ".join(step.changes) or "nothing that edge records changed: other programs, heat, or chance"
    verdict = step.verdict or "no step"
    return f"{escape(when)}: <b>{escape(verdict)}</b>, {escape(times)}: {escape(cause)}"
