import io

import pytest

from edge.console.progress import ProgressBar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drive(stream: io.StringIO, quiet: bool = False) -> str:
    with ProgressBar(2, "working", quiet=quiet, stream=stream) as bar:
        bar.note("on the first")
        bar.advance("first")
        bar.advance()
    return stream.getvalue()


def test_a_log_gets_one_line_for_each_step() -> None:
    assert drive(io.StringIO()) == "working 1/2 first\nworking 2/2\n"


def test_quiet_is_silent_where_it_is_no_terminal() -> None:
    assert drive(io.StringIO(), quiet=True) == ""


@pytest.mark.parametrize("quiet", [False, True])
def test_a_terminal_gets_a_bar_that_is_gone_at_the_end(quiet: bool) -> None:
    shown = drive(Terminal(), quiet)
    assert "0/2 on the first" in shown
    assert "1/2 first" in shown
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[K")


def test_a_bar_never_overflows_its_total_or_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    stream = Terminal()
    with ProgressBar(1, "working", stream=stream) as bar:
        bar.advance("x" * 100, steps=5)
    drawn = stream.getvalue().split("\r\x1b[K")
    assert max(len(line) for line in drawn) == 39
    assert "1/1" in drawn[2]


def test_the_bar_is_gone_after_an_error_too() -> None:
    stream = Terminal()
    with pytest.raises(RuntimeError), ProgressBar(1, "working", stream=stream):
        raise RuntimeError
    assert stream.getvalue().endswith("\r\x1b[K")
