"""Answers on the terminal: rendered as Markdown, without control sequences of the model's."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

import pytest
from rich.console import Console

from edge.chat.live_markdown import Markdown, PlainText
from edge.console.text import readable

ANSWER = """# Title

Some **bold** words.

```python
a = 1

b = 2
```

1. one
2. two

The end."""


def _shown(kind, text: str, size: int, *, terminal: bool = True) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=60, height=20, color_system=None)
    shown = kind(console)
    for place in range(0, len(text), size):
        shown.feed(text[place : place + size])
    shown.end()
    return console.file.getvalue()


def _final(output: str) -> list[str]:
    """The lines that stay, as a terminal would show them: cursor movements and erasing are obeyed."""
    lines, row, column, place = [""], 0, 0, 0
    while place < len(output):
        character = output[place]
        if character == "\x1b":
            end = next(i for i in range(place + 2, len(output)) if output[i].isalpha())
            number = output[place + 2 : end]
            if output[end] == "A":
                row -= int(number or 1)
            elif output[end] == "K":
                lines[row] = ""
            place = end + 1
            continue
        if character == "\n":
            row, column = row + 1, 0
            lines += [""] * (row - len(lines) + 1)
        elif character == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
        place += 1
    return [line.rstrip() for line in lines]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_stays_on_the_screen_does_not_depend_on_the_pieces(size) -> None:
    lines = [line for line in _final(_shown(Markdown, ANSWER, size)) if line]
    assert any("Title" in line for line in lines)
    assert "Some bold words." in lines
    assert [line.strip() for line in lines if line.strip() in ("a = 1", "b = 2")] == ["a = 1", "b = 2"]
    assert lines[-1] == "The end."
    assert len([line for line in lines if "The end." in line]) == 1


def test_a_block_longer_than_the_screen_stays_once() -> None:
    text = " ".join(f"word{number}" for number in range(400))
    output = "\n".join(_final(_shown(Markdown, text, 50)))
    assert all(output.split().count(f"word{number}") == 1 for number in range(400))


@pytest.mark.parametrize("kind", [Markdown, PlainText])
def test_escape_sequences_of_a_model_do_not_reach_the_terminal(kind) -> None:
    output = _shown(kind, "a\x1b]0;owned\x07b\x1b[2Jc\x9b31m\u202ed", 3)
    assert "\x1b]" not in output
    assert "[2J" not in output.replace("\ufffd[2J", "")
    assert "\x07" not in output
    assert "\x9b" not in output
    assert "\u202e" not in output


@pytest.mark.parametrize(
    "text",
    [
        "List<int> in C++, x<y>z and a<!-- note -->b",
        "<div class='a'>\nHello <b>you</b>\n</div>",
        "<think>hm</think> 4",
        "&lt;p&gt; is <p>",
        "[1]: https://example.org 'source'\n\nsee [1]",
        "![a cat](cat.png)",
        r"\(a_1 + b\) and \[ x^2 \]",
        "<script>alert(1)</script>",
        '[text](https://example.org/page "and its title")',
    ],
)
def test_every_character_of_an_answer_is_shown(text) -> None:
    shown = "".join("".join(_final(_shown(Markdown, text, 5))).split())
    for word in re.findall(r"[\w<>/\\=!().:-]+", text.replace("&lt;", "<").replace("&gt;", ">")):
        characters = [character for character in word if character not in "![]()" or "\\" in word]
        assert _in_order(characters, shown), (word, shown)


def test_stars_of_a_product_are_shown_and_those_of_an_emphasis_are_not() -> None:
    product = "2*3*4 = 24, 5*x and 3*y, 2**10 and 3**4"
    assert [line.strip() for line in _final(_shown(Markdown, product, 3)) if line] == [product]
    shown = "".join(_final(_shown(Markdown, "**LLM**s, *one* and **2**: 2*3*4 这是**重要**的", 3)))
    assert shown.strip() == "LLMs, one and 2: 2*3*4 这是重要的"


def _in_order(characters: Sequence[str], text: str) -> bool:
    rest = iter(text)
    return all(character in rest for character in characters)


def test_a_row_with_too_many_cells_keeps_them_in_its_last_one() -> None:
    answer = "> | a | b |\n> |---|:-:|\n> | 1 | `x|y` | 3 \\| 4 | 5 |\n> | 6 |"
    lines = [" ".join(line.split()) for line in _final(_shown(Markdown, answer, 5))]
    assert "▌ 1 x | y | 3 | 4 | 5" in lines
    assert "▌ 6" in lines


def test_code_in_code_is_shown_as_it_is() -> None:
    answer = "````markdown\n# Title\n\n```python\na = 1\n```\n\n~~~\n*stars*\n````\n\n*after*"
    lines = [line.strip() for line in _final(_shown(Markdown, answer, 6)) if line]
    assert lines == ["# Title", "```python", "a = 1", "```", "~~~", "*stars*", "after"]


def test_what_follows_a_fence_is_shown_unless_it_is_a_language() -> None:
    answer = "```c++ main.cpp\nint a;\n```\n\n```Dear reader\nhello\n```\n\n> ~~~\n> b\n> ~~~\n\n```python\nc\n```"
    lines = [line.strip(" ▌") for line in _final(_shown(Markdown, answer, 4))]
    assert [line for line in lines if line] == ["c++ main.cpp", "int a;", "Dear reader", "hello", "b", "c"]


def test_code_keeps_its_backslashes_and_brackets() -> None:
    shown = "\n".join(_final(_shown(Markdown, '```\na = "\\(<b>\\)"\n```\n\nand `\\[<i>`', 4)))
    assert 'a = "\\(<b>\\)"' in shown
    assert "\\[<i>" in shown


def test_every_script_stays_as_it_is() -> None:
    text = "日本\u3000語 \U0001f469\u200d\U0001f4bb é\u00a0à\n\tשלום"
    assert readable(text) == text
