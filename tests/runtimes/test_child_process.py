"""Child processes: ended together with all that they started, with the last lines of their output."""

import subprocess
import sys
import tempfile

import pytest

from runtimes.child_process import end, last_words, start, start_text

posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups are POSIX")


@posix
def test_a_child_is_ended_with_what_it_started() -> None:
    grandchild = "import sys, time; print('here', flush=True); time.sleep(600)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    with tempfile.TemporaryFile() as log:
        child = start([sys.executable, "-c", code], log)
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == b"here\n"
        end(child)
        assert child.stdout.read() == b""  # its end: nobody holds the other side any more
        assert child.wait() != 0
        child.stdin.close()
        child.stdout.close()


def test_ending_a_child_that_was_collected_does_nothing() -> None:
    child = start([sys.executable, "-c", "pass"], subprocess.DEVNULL)
    assert child.wait() == 0
    end(child)
    assert child.returncode == 0
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.close()
    child.stdout.close()


def test_last_words_are_the_end_of_the_log() -> None:
    with tempfile.TemporaryFile() as log:
        log.write(b"a" * 100 + "\n\N{LATIN SMALL LETTER E WITH ACUTE}nd\n".encode())
        assert last_words(log, 5) == "\xe9nd"
        assert last_words(log).startswith("aaa")
        assert last_words(log).endswith("\xe9nd")


def test_text_that_is_not_utf8_is_replaced() -> None:
    child = start_text([sys.executable, "-c", r"import os; os.write(1, b'\xff\n')"], subprocess.DEVNULL)
    out, _ = child.communicate()
    assert out == "\N{REPLACEMENT CHARACTER}\n"
