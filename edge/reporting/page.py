"""The HTML of a report: one file without scripts, which opens from disk, prints, and fits a phone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge.reporting.svg import NARROW, WIDE, Drawing, escape

# Nothing is loaded: the page has no script, and the only styles are its own.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("style.css")


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of the page; `body` is HTML."""

    id: str
    title: str
    body: str


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of a table: `text` is HTML, `span` the number of its columns."""

    text: str
    is_number: bool = False
    style: str = ""
    span: int = 1


def page(title: str, lead: Sequence[str], sections: Sequence[Section]) -> str:
    """Return the page; the lead's paragraphs are HTML."""
    links = "".join(f'<a href="#{one.id}">{escape(one.title)}</a> ' for one in sections)
    body = "".join(f'<section id="{one.id}"><h2>{escape(one.title)}</h2>\n{one.body}</section>\n' for one in sections)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        f"<title>{escape(title)}</title>\n<style>\n{_style_sheet()}</style></head>\n<body><header><h1>{escape(title)}</h1>"
        f"{''.join(f'<p>{line}</p>' for line in lead)}<nav>{links}</nav></header>\n"
        f"<main>\n{body}</main></body></html>\n"
    )


def picture(body: str, margin: int) -> str:
    """Return a page of one figure, from which a browser draws a picture."""
    head = f"{_style_sheet()}body {{ max-width: none; padding: {margin}px; }}"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>picture</title>'
        f"<style>{head}</style></head><body>{body}</body></html>\n"
    )


def figure(identifier: str, title: str, chart: Callable[[float], Drawing], description: str, caption: str) -> str:
    """Return a figure, drawn for desktops and for phones; the caption is HTML."""
    drawn = "".join(
        f'<div class="{name}">{chart(width).render(f"{identifier}-{name}", title, description)}</div>'
        for name, width in (("wide", WIDE), ("narrow", NARROW))
    )
    return f'<figure id="{identifier}">{drawn}<figcaption>{caption}</figcaption></figure>\n'


def table(
    caption: str, columns: Sequence[tuple[str, bool]], groups: Sequence[tuple[str, Sequence[Sequence[Cell]]]]
) -> str:
    """Return a table whose rows are in groups, each below its title; the first cell of a row is its header.

    columns: Each with its title, and whether its cells are numbers.
    """
    head = "".join(
        f'<th scope="col"{_class("number" * is_number)}>{escape(title)}</th>' for title, is_number in columns
    )
    bodies = "".join(f"<tbody>{''.join(_rows(title, rows, len(columns)))}</tbody>" for title, rows in groups if rows)
    return (
        f'<div class="scroll"><table><caption>{caption}</caption><thead><tr>{head}</tr></thead>{bodies}</table></div>\n'
    )


def _rows(title: str, rows: Sequence[Sequence[Cell]], width: int) -> Iterator[str]:
    if title:
        yield f'<tr class="group"><th scope="rowgroup" colspan="{width}">{escape(title)}</th></tr>'
    for first, *others in rows:
        cells = "".join(f"<td{_span(cell)}{_class(_style(cell))}>{cell.text}</td>" for cell in others)
        yield f'<tr><th scope="row"{_class(_style(first))}>{first.text}</th>{cells}</tr>\n'


def definitions(pairs: Sequence[tuple[str, str]]) -> str:
    """Return a list of names with their values, which are HTML."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{value}</dd>" for name, value in pairs)
    return f"<dl>{lines}</dl>\n"


def code(command: str) -> str:
    """Return a command."""
    return f"<code>{escape(command)}</code>"


def link_addresses(text: str) -> str:
    """Return a text whose words that are web addresses are links."""
    words = text.split(" ")
    return " ".join(
        f'<a href="{escape(word)}" rel="noreferrer">{escape(word)}</a>' if word.startswith("https://") else escape(word)
        for word in words
    )


def _style_sheet() -> str:
    return _STYLE.read_text(encoding="utf-8")


def _style(cell: Cell) -> str:
    return " ".join(filter(None, ("number" * cell.is_number, cell.style)))


def _span(cell: Cell) -> str:
    return f' colspan="{cell.span}"' if cell.span > 1 else ""


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""
