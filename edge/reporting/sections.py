"""What a report says about its results: a table, figures, boards side by side, and how each number was made."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from edge.benchmark.tables import NONE
from edge.reporting.charts import Line, Point, best_points, draw_bars, draw_distributions, draw_intervals, draw_scatter
from edge.reporting.page import Cell, Section, code, definitions, figure, link_addresses, table
from edge.reporting.results import ESTIMATED, KINDS, MEASURED, MISSING, PUBLISHED, ReportedResult
from edge.reporting.svg import Drawing, escape, format_number

_MAX_OPERATORS = 15
Numbered = Sequence[tuple[int, ReportedResult]]
_Column = tuple[str, bool, Callable[[ReportedResult], str]]
_TITLES = {
    PUBLISHED: "Published by others, not measured here",
    MEASURED: "Measured",
    ESTIMATED: "Estimated from published rows, not measured",
    MISSING: "Not measured",
}


def legend(kinds: Collection[str]) -> str:
    """Return what the marks of these kinds mean."""
    words = {
        MEASURED: "measured: median, 95 % interval",
        PUBLISHED: "published: mean of a loop",
        ESTIMATED: "estimated: 90 % band",
    }
    parts = []
    for style, meaning in words.items():
        if style not in kinds:
            continue
        drawing = Drawing(16, 14)
        drawing.mark(8, 7, style)
        parts.append(f"<span>{drawing.render(f'key-{style}', style, meaning)} {meaning}</span>")
    return f'<p class="soft key">{" ".join(parts)}</p>\n'


def result_sections(results: Sequence[ReportedResult], notes: Sequence[str] = ()) -> Iterator[Section]:
    """Yield the sections; those without content are left out."""
    numbered = list(enumerate(results, start=1))
    if numbered:
        yield Section(id="results", title="Results", body=_table(numbered) + _notes(notes))
    timed = [(place, one) for place, one in numbered if one.latency_ms]
    if timed:
        yield Section(id="latency", title="Latency", body=legend({one.kind for _, one in timed}) + _latency(timed))
    yield from _distributions(numbered)
    yield from _accuracy(numbered)
    yield from _energy(numbered)
    yield from _operators(numbered)
    yield from _boards(numbered)


def made_section(results: Sequence[ReportedResult]) -> Section:
    """Return how each number was made, and what repeats it."""
    parts = []
    for place, one in enumerate(results, start=1):
        pairs = [
            ("kind", escape(one.kind)),
            *((name, link_addresses(value)) for name, value in one.facts),
            *(("doubt", escape(doubt)) for doubt in one.doubts),
            *([("not measured", escape(one.reason))] if one.reason else []),
            *([("repeat", code(one.command))] if one.command else []),
        ]
        parts.append(f'<h3 id="row-{place}">{place} {escape(one.setup)}</h3>{definitions(pairs)}')
    return Section(id="made", title="How each number was made", body="".join(parts))


def _table(numbered: Numbered) -> str:
    machines = {one.machine for _, one in numbered if one.kind == MEASURED}
    columns: Sequence[_Column] = (
        ("Latency [ms]", True, _latency_cell),
        ("fps", True, lambda one: "" if one.fps is None else f"{one.fps:.4g}"),
        ("Accuracy", True, lambda one: "" if one.accuracy is None else f"{one.accuracy.value:.1%}"),
        ("Energy [J]", True, lambda one: "" if one.joules is None else f"{one.joules:.3g}"),
        ("Precision", False, lambda one: escape(one.precision)),
        ("Threads", True, lambda one: str(one.threads or "")),
        ("Engine", False, lambda one: escape(one.engine)),
        *([("Machine", False, lambda one: escape(one.machine))] if len(machines) > 1 else []),
    )
    with_values = [one for _, one in numbered if one.kind != MISSING]
    shown = [column for column in columns if any(column[2](one) for one in with_values)]
    groups = []
    for kind in KINDS:
        lines = [(place, one) for place, one in numbered if one.kind == kind]
        groups.append((_TITLES[kind], [_line(place, one, shown) for place, one in lines]))
    caption = "Numbers link to how each row was made."
    if len(machines) == 1:
        caption = f"Measured on {escape(next(iter(machines)) or 'an unknown machine')}. {caption}"
    return table(caption, [("Setup", False), *((title, is_number) for title, is_number, _ in shown)], groups)


def _latency_cell(one: ReportedResult) -> str:
    if one.latency_ms is None:
        return ""
    interval = "" if one.low_ms is None or one.high_ms is None else f"{one.low_ms:.4g}…{one.high_ms:.4g}"
    return f"{one.latency_ms:.4g}" + (f'<br><span class="soft">{interval}</span>' if interval else "")


def _line(place: int, one: ReportedResult, columns: Sequence[_Column]) -> list[Cell]:
    first = Cell(text=f'<a href="#row-{place}">{place}</a> {escape(one.setup)}')
    if one.kind == MISSING:
        return [first, *([Cell(text=escape(one.reason), span=len(columns))] if columns else [])]
    return [first, *(Cell(text=cell(one) or NONE, is_number=is_number) for _, is_number, cell in columns)]


def _notes(notes: Sequence[str]) -> str:
    return "".join(f"<p>{link_addresses(note)}</p>\n" for note in notes)


def _label(place: int, one: ReportedResult, results: Numbered) -> str:
    """Return a row's number and name, with its machine if several have a row of that name."""
    same = {other.machine for _, other in results if other.setup == one.setup}
    return f"{place} {one.setup}" + (f", {one.machine}" if len(same) > 1 else "")


def _describe_origin(numbered: Numbered) -> str:
    """Return where a figure's numbers come from."""
    places = [place for place, _ in numbered]
    starts = [place for place in places if place - 1 not in places]
    ends = [place for place in places if place + 1 not in places]
    links = ", ".join(
        f'<a href="#row-{start}">{start}{f"–{end}" if end > start else ""}</a>'
        for start, end in zip(starts, ends, strict=True)
    )
    return f"Repeat it with the command of row{'s' * (len(numbered) > 1)} {links}."


def latency_chart(timed: Numbered) -> Callable[[float], Drawing]:
    """Return the figure of the rows' latencies, fastest first."""
    lines = [
        Line(
            label=_label(place, one, timed),
            value=one.latency_ms or 0.0,
            low=one.low_ms,
            high=one.high_ms,
            style=one.kind,
        )
        for place, one in sorted(timed, key=lambda pair: pair[1].latency_ms or 0.0)
    ]
    return lambda width: draw_intervals(lines, "ms", width)


def _latency(timed: Numbered) -> str:
    place, fastest = min(timed, key=lambda pair: pair[1].latency_ms or 0.0)
    said = f"The fastest is {_label(place, fastest, timed)} with {format_number(fastest.latency_ms or 0.0)} ms."
    return figure("latency-figure", "Latency of one inference", latency_chart(timed), said, _describe_origin(timed))


def _distributions(numbered: Numbered) -> Iterator[Section]:
    sampled = [(place, one) for place, one in numbered if len(one.samples_ms) > 1]
    if not sampled:
        return
    lines = [
        Line(label=_label(place, one, sampled), value=one.latency_ms or 0.0, samples=one.samples_ms)
        for place, one in sampled
    ]
    caption = (
        "Every run, relative to the median of its setup, which is written in milliseconds at the right. "
        f"Runs slower than the axis are drawn at its end. {_describe_origin(sampled)}"
    )
    body = figure(
        "distributions-figure",
        "Distribution of the latencies",
        lambda width: draw_distributions(lines, width),
        f"Histograms of {len(lines)} setups.",
        caption,
    )
    yield Section(id="distributions", title="Distribution of the latencies", body=body)


def _accuracy(numbered: Numbered) -> Iterator[Section]:
    """Yield a figure for each metric and data set."""
    known = [(place, one) for place, one in numbered if one.accuracy is not None and one.latency_ms]
    kinds = dict.fromkeys((one.accuracy.metric, one.accuracy.data) for _, one in known if one.accuracy)
    bodies = []
    for count, (metric, data) in enumerate(kinds):
        mine = [(place, one, one.accuracy) for place, one in known if one.accuracy]
        chosen = [(place, one, found) for place, one, found in mine if (found.metric, found.data) == (metric, data)]
        best = best_points([(one.latency_ms or 0.0, found.value) for _, one, found in chosen])
        points = [
            Point(label=f"{place} {one.setup}", x=one.latency_ms or 0.0, y=found.value, style=one.kind, is_best=is_best)
            for (place, one, found), is_best in zip(chosen, best, strict=True)
        ]
        inputs = max(found.count for _, _, found in chosen)
        names = ", ".join(point.label for point in points if point.is_best)
        rows = [(place, one) for place, one, _ in chosen]
        caption = (
            f"{escape(metric)} on {inputs} inputs of {escape(data)}. On the dashed line are the rows that no other "
            f"row beats in both: {escape(names)}. {_describe_origin(rows)}"
        )
        bodies.append(
            figure(
                f"accuracy-{count}",
                "Accuracy against latency",
                lambda width, points=points, metric=metric: draw_scatter(points, "ms", metric, width),  # type: ignore[misc]
                f"The best trade-offs: {names}.",
                caption,
            )
        )
    if bodies:
        yield Section(id="accuracy", title="Accuracy against latency", body="".join(bodies))


def _energy(numbered: Numbered) -> Iterator[Section]:
    known = [(place, one) for place, one in numbered if one.joules is not None]
    if not known:
        return
    lines = [Line(label=_label(place, one, known), value=one.joules or 0.0, style=one.kind) for place, one in known]
    caption = "Of one inference, with the power that the idle machine needs. " + _describe_origin(known)
    body = figure(
        "energy-figure", "Energy", lambda width: draw_bars(lines, "J", width), f"{len(lines)} setups.", caption
    )
    yield Section(id="energy", title="Energy", body=body)


def _operators(numbered: Numbered) -> Iterator[Section]:
    bodies = []
    for place, one in numbered:
        if one.profile is None:
            continue
        shown, rest = one.profile["operators"][:_MAX_OPERATORS], one.profile["operators"][_MAX_OPERATORS:]
        lines = [Line(label=f"{found['name']} ({found['type']})", value=found["ms"]) for found in shown]
        if rest:
            lines.append(Line(label=f"{len(rest)} more operators", value=sum(found["ms"] for found in rest)))
        lines.append(Line(label="outside operators", value=max(one.profile["outside_ms"], 0.0), style="published"))
        caption = (
            f"Mean of {one.profile['runs']} runs with the engine's profiler, which slows it down: the bars add up to "
            f"{format_number(one.profile['total_ms'])} ms. {_describe_origin([(place, one)])}"
        )
        bodies.append(
            f"<h3>{place} {escape(one.setup)}</h3>"
            + figure(
                f"operators-{place}",
                f"Operators of {one.setup}",
                lambda width, lines=lines: draw_bars(lines, "ms", width),  # type: ignore[misc]
                f"The slowest is {lines[0].label}.",
                caption,
            )
        )
    if bodies:
        yield Section(id="operators", title="Time by operator", body="".join(bodies))


def _boards(numbered: Numbered) -> Iterator[Section]:
    """Yield a table of the setups that several machines have, with a column for each machine."""
    known = [(place, one) for place, one in numbered if one.kind in (MEASURED, ESTIMATED) and one.latency_ms]
    machines = list(dict.fromkeys(one.machine for _, one in known))
    groups = list(dict.fromkeys(one.group for _, one in known))
    cells = {(one.group, one.machine): (place, one) for place, one in known}
    lines = []
    for group in groups:
        found = [cells.get((group, machine)) for machine in machines]
        if sum(one is not None for one in found) > 1:
            lines.append([Cell(text=escape(group)), *(_board_cell(one) for one in found)])
    if not lines:
        return
    caption = "Latency in milliseconds, and the number of the row."
    body = table(caption, [("Setup", False), *((machine, True) for machine in machines)], [("", lines)])
    yield Section(id="boards", title="Boards side by side", body=body)


def _board_cell(found: tuple[int, ReportedResult] | None) -> Cell:
    if found is None:
        return Cell(text=NONE, is_number=True)
    place, one = found
    mark = " (estimated)" if one.kind == ESTIMATED else ""
    return Cell(text=f'{one.latency_ms:.4g}{mark} <a href="#row-{place}">{place}</a>', is_number=True)
