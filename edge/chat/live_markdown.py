"""Show a model's answer on the terminal while it streams: rendered as Markdown, or as plain text."""

from __future__ import annotations

import functools
import re
import time
from typing import TYPE_CHECKING, Protocol

from edge.console.text import readable

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.rules_inline import StateInline
    from markdown_it.token import Token
    from rich.console import Console, ConsoleOptions, RenderResult

_MIN_PAUSE_S = 0.05  # between two redraws: 20 a second look continuous
_PAUSE_FACTOR = 10  # pause ten times as long as a redraw took: drawing takes a tenth of the time, even on a slow board
_FORMULA_MARKS = ("\\(", "\\)", "\\[", "\\]")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})(.*)$", re.MULTILINE)
_BETWEEN_CELLS = re.compile(r"(?<!\\)\|")
_STARS = re.compile(r"(?<=[0-9A-Za-z])\*+(?=[0-9A-Za-z])")


class AnswerView(Protocol):
    """Displays an answer piece by piece."""

    def feed(self, text: str) -> None:
        """Show a piece."""

    def end(self) -> None:
        """End the answer, or interrupt it for other output."""


class PlainText:
    """Writes the answer as it arrives, and a newline at its end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._ends_line = True

    def feed(self, text: str) -> None:
        """Write a piece."""
        if text:
            self._console.file.write(readable(text))
            self._console.file.flush()
            self._ends_line = text.endswith("\n")

    def end(self) -> None:
        """End the line."""
        if not self._ends_line:
            self.feed("\n")


class Markdown:
    """Redraws the current block while it grows, and prints each block once when it is finished.

    A block ends with an empty line outside fenced code, so printed text never changes.
    """

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._console = console
        self._pending = ""
        self._next_draw = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def feed(self, text: str) -> None:
        """Add a piece. It is drawn at once, or together with a later one."""
        self._pending += readable(text)
        if not self._live.is_started:
            self._live.start()
        finished, self._pending = _split(self._pending)
        if finished.strip():
            self._live.update("")
            self._print(finished)
            self._next_draw = 0.0
        began = time.monotonic()
        if began >= self._next_draw:
            self._live.update(_Tail(self._pending), refresh=True)
            cost = time.monotonic() - began
            self._next_draw = began + max(_MIN_PAUSE_S, _PAUSE_FACTOR * cost)

    def end(self) -> None:
        """Print the last block."""
        self._live.update("")
        self._live.stop()
        if self._pending.strip():
            self._print(self._pending)
        self._pending = ""

    def _print(self, text: str) -> None:
        self._console.print(_render(text))
        self._console.print()


class _Tail:
    """The last lines of a text as Markdown, at most the terminal's height: rich cannot erase more."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.segment import Segment

        lines = console.render_lines(_render(self._text), options, pad=False)
        for line in lines[-max(1, console.size.height - 2) :]:
            yield from line
            yield Segment.line()


def _render(text: str):  # type: ignore[no-untyped-def] # rich's Markdown, imported only here
    from rich import markdown

    # No hyperlinks: both the text of a link and its address should be visible.
    shown = markdown.Markdown(text.strip("\n"), hyperlinks=False, code_theme="ansi_dark")
    shown.parsed = _parser().parse(shown.markup)
    for token in shown.parsed:
        if token.type == "fence" and not _names_a_language(token.info):
            token.content, token.info = f"{token.info}\n{token.content}", ""  # rich shows nothing of it
        for child in token.children or ():
            if child.type == "link_open" and "title" in child.attrs:
                child.attrs["href"] = f'{child.attrs["href"]} "{child.attrs["title"]}"'
    return shown


def _names_a_language(info: str) -> bool:
    """Whether what follows a fence is nothing, or the name of a language, and not a part of the answer."""
    from rich.syntax import Syntax

    return not info or Syntax("", info.strip()).lexer is not None


@functools.cache
def _parser() -> MarkdownIt:
    """A parser that keeps what rich's own drops: HTML, images, references, formulas, products, and cells."""
    import markdown_it
    from markdown_it.rules_block import table
    from markdown_it.rules_inline import emphasis, escape

    def keep_formula(state: StateInline, silent: bool) -> bool:
        r"""Read \( \) \[ \] as text, backslash included: models write formulas between them."""
        mark = state.src[state.pos : state.pos + 2]
        if mark not in _FORMULA_MARKS:
            return escape(state, silent)
        if not silent:
            state.pending += mark
        state.pos += len(mark)
        return True

    def keep_stars(state: StateInline, silent: bool) -> bool:
        """Read stars between letters or digits as text, as in 2*3*4, unless they may end an emphasis (**LLM**s)."""
        stars = _STARS.match(state.src, state.pos)
        marks = [mark for mark in state.delimiters if chr(mark.marker) == "*"]
        is_open = sum(-1 if mark.close else 1 for mark in marks) > 0
        if stars is None or is_open or silent:
            return emphasis.tokenize(state, silent)
        state.pending += stars[0]
        state.pos = stars.end()
        return True

    def keep_cells(state: StateBlock, start: int, end: int, silent: bool) -> bool:
        """Read a table; what stands beyond its last column, such as the rest of `a|b`, goes to that column."""
        before = len(state.tokens)
        if not table(state, start, end, silent):
            return False
        cells: list[Token] = []
        for token in state.tokens[before:]:
            if token.type == "inline":
                cells.append(token)
            elif token.type == "tr_close":
                assert cells[0].map is not None
                line = state.getLines(cells[0].map[0], cells[0].map[1], 0, False).strip()
                found = _BETWEEN_CELLS.split(line.removeprefix("|"))
                lost = [cell.strip() for cell in found[len(cells) :]]
                cells[-1].content = " | ".join([cells[-1].content, *filter(None, lost)])
                cells = []
        return True

    parser = markdown_it.MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"])
    parser.disable(["html_block", "html_inline", "image", "reference"])
    parser.inline.ruler.at("escape", keep_formula)
    parser.inline.ruler.at("emphasis", keep_stars)
    parser.block.ruler.at("table", keep_cells, {"alt": ["paragraph", "reference"]})
    return parser


def _split(text: str) -> tuple[str, str]:
    """Split into the finished blocks and the current one."""
    end_of_block = text.rfind("\n\n")
    while end_of_block >= 0:
        if not _is_in_code(text[:end_of_block]):
            return text[: end_of_block + 2], text[end_of_block + 2 :]
        end_of_block = text.rfind("\n\n", 0, end_of_block)
    return "", text


def _is_in_code(text: str) -> bool:
    """Whether a text ends inside fenced code; a fence is closed by one of the same sign that is at least as long."""
    opening = ""
    for fence, rest in _FENCE.findall(text):
        if not opening:
            opening = fence
        elif fence.startswith(opening) and not rest.strip():
            opening = ""
    return bool(opening)
