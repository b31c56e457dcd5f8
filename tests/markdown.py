"""Read the documentation pages: fenced blocks, links, anchors, `edge` command lines and Python examples."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SHELLS = ("", "sh", "bash", "console")
_FENCE = re.compile(r"^( *)(```+|~~~+)\s*(\S*)")  # indented in a list
_HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
_LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_REFERENCE = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?\s*$")
_CODE_SPAN = re.compile(r"(`+)(?:(?!\1).)+?\1")
_PATH = re.compile(r"(?<![\w/.~(-])(?:edge|converters|runtimes|device_profiles|tests|docs)/[\w./-]*<?")
_ASSIGNMENT = re.compile(r"[A-Z_][A-Z0-9_]*=")
_OPERATORS = ("|", "||", "&&", ";", "&")
_REDIRECTIONS = (">", ">>", "<")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language (empty for none), the line number of its first line in the page, and its lines."""

    language: str
    line: int
    lines: tuple[str, ...]


def split(text: str) -> tuple[list[tuple[int, str]], list[Block]]:
    """Split a page into numbered lines of prose and fenced blocks. Raises ValueError for an unclosed fence."""
    prose: list[tuple[int, str]] = []
    blocks: list[Block] = []
    indent, fence, language, start, inside = "", "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        if fence:
            if line.strip().startswith(fence) and not line.strip().strip(fence[0]):
                blocks.append(Block(language, start, tuple(inside)))
                fence = ""
            else:
                inside.append(line.removeprefix(indent))
        elif found := _FENCE.match(line):
            indent, fence, language, start, inside = found[1], found[2], found[3].lower(), number + 1, []
        else:
            prose.append((number, line))
    if fence:
        raise ValueError(f"the fence before line {start} is not closed")
    return prose, blocks


def anchors(text: str) -> set[str]:
    """Return GitHub's anchors of a page's headings; repeated headings get -1, -2, …."""
    found: dict[str, int] = {}
    result = set()
    for _, line in split(text)[0]:
        heading = _HEADING.match(line)
        if heading is None:
            continue
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1]).strip().lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        count = found.get(slug, 0)
        found[slug] = count + 1
        result.add(f"{slug}-{count}" if count else slug)
    return result


def links(text: str) -> Iterator[tuple[int, str]]:
    """Return the targets of a page's links within the project, each with its line."""
    for number, line in split(text)[0]:
        plain = _CODE_SPAN.sub("", line)
        for target in (*_LINK.findall(plain), *_REFERENCE.findall(plain)):
            if not re.match(r"[a-z][a-z0-9+.-]*:", target):
                yield number, target


def broken_links(page: Path, root: Path) -> list[str]:
    """Return the errors of the links of `page`, one per line: a missing file or heading, or a target outside `root`."""
    wrong = []
    for number, target in links(page.read_text(encoding="utf-8")):
        name, _, anchor = target.partition("#")
        path = (page.parent / name).resolve() if name else page.resolve()
        where = f"{page.relative_to(root)}:{number}: {target}"
        if not path.is_relative_to(root.resolve()):
            wrong.append(f"{where} leaves the project")
        elif not path.exists():
            wrong.append(f"{where} does not exist")
        elif anchor and (path.suffix != ".md" or anchor not in anchors(path.read_text(encoding="utf-8"))):
            wrong.append(f"{where} has no such heading")
    return wrong


def missing_paths(page: Path, root: Path) -> list[str]:
    """The files and folders of the project that `page` names outside links and that do not exist, each with its line.

    Of a path with a placeholder, as in `runtimes/engines/<id>.py`, the folder counts. `my-...` is the reader's.
    """
    wrong = []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        for name in _PATH.findall(line):
            path = name.rpartition("/")[0] if name.endswith("<") else name.rstrip(".")
            if "/my-" not in path and not (root / path).exists():
                wrong.append(f"{page.relative_to(root)}:{number}: {path}")
    return wrong


def commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """The `edge` command lines in a page's shell blocks, as words after `edge`, each with its line.

    Handles the prompt `$ `, comments, lines that end in a backslash, variables set in front, pipes and redirections.
    """
    for block in split(text)[1]:
        if block.language not in SHELLS:
            continue
        for number, line in _joined(block):
            if not re.match(r"(?:\$ )?(?:[A-Z_][A-Z0-9_]*=\S* )*(?:edge\s|.*(?:\||&&|;) *edge\s)", line):
                continue
            for words in _simple_commands(line.removeprefix("$ ")):
                if words[:1] == ["edge"]:
                    yield number, words[1:]


def _joined(block: Block) -> Iterator[tuple[int, str]]:
    pending, start = "", 0
    for number, line in enumerate(block.lines, block.line):
        start = start if pending else number
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1] + " "
            continue
        yield start, pending
        pending = ""


def _simple_commands(line: str) -> Iterator[list[str]]:
    """Return the commands of a line, split at pipes and similar operators, without assignments and redirections."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word in _OPERATORS:
            if words:
                yield words
            words = []
        elif word in _REDIRECTIONS:
            skip = True
        elif skip:
            skip = False
        elif words or not _ASSIGNMENT.match(word):
            words.append(word)


def examples(text: str) -> list[Block]:
    """Return the Python examples of a page, in order."""
    return [block for block in split(text)[1] if block.language in ("python", "py")]


def run_examples(page: Path, folder: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run the Python examples of `page` in one process, one after another, in `folder`.

    They share their variables, as a reader would type them; a traceback names the page and its line.
    """
    blocks = examples(page.read_text(encoding="utf-8"))
    last = max((block.line + len(block.lines) for block in blocks), default=1)
    lines = [""] * last
    for block in blocks:
        lines[block.line - 1 : block.line - 1 + len(block.lines)] = block.lines
    program = "import sys; text = sys.stdin.read(); exec(compile(text, sys.argv[1], 'exec'), {'__name__': '__main__'})"
    return subprocess.run(
        [sys.executable, "-c", program, str(page)],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=timeout_s,
    )
