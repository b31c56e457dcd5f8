"""The small programs of the Makefile: their output, and the exit status that they pass on."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

TOOLS = Path(__file__).parent / "tools"

NINJA = """\
  *** Configuring CMake...
  [1/3] Building C object ggml.c.o
  warning: [9/9] is no step here
  [2/3] Building CXX object llama.cpp.o
  [3/3] Linking CXX shared library libllama.so
"""
MAKE = "[ 12%] Building C object a.o\n[100%] Built target all\n"


def run_tool(name: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, TOOLS / name, *words], capture_output=True, text=True, check=False)


def echo(text: str, status: int = 0) -> list[str]:
    return [sys.executable, "-c", f"import sys; print({text!r}); sys.exit({status})"]


@pytest.mark.parametrize(
    ("log", "shown"), [(NINJA, ["[1/3]", "[2/3]", "[3/3]"]), (MAKE, ["[12/100]", "[100/100]"])], ids=["ninja", "make"]
)
def test_a_build_log_becomes_a_counter(log: str, shown: list[str]) -> None:
    done = run_tool("progress.py", "--count", "compiling", "--", *echo(log))
    assert done.returncode == 0
    assert done.stdout == ""
    *steps, last = done.stderr.splitlines()
    assert [line.split()[1] for line in steps] == shown
    assert last.startswith("compiling: took ")


def test_a_step_that_fails_shows_the_end_of_its_log_and_hands_its_status_on() -> None:
    log = "".join(f"line {number}\n" for number in range(100)) + "error: no such file"
    done = run_tool("progress.py", "--count", "compiling", "--", *echo(log, 3))
    assert done.returncode == 3
    lines = done.stderr.splitlines()
    assert "line 99" in lines
    assert "line 1" not in lines
    assert "error: no such file" in lines
    assert lines[-1].startswith("compiling: failed after ")


def test_a_step_that_draws_for_itself_keeps_its_output() -> None:
    done = run_tool("progress.py", "installing", "--", *echo("a bar"))
    assert (done.returncode, done.stdout) == (0, "a bar\n")
    assert done.stderr.startswith("installing: took ")


@pytest.mark.parametrize("words", [[], ["label"], ["label", "--"], ["--count"]])
def test_a_step_without_a_command_is_refused(words: list[str]) -> None:
    assert run_tool("progress.py", *words).returncode == 2


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (187, "3 min 07 s")])
def test_durations_are_words(seconds: float, text: str) -> None:
    found = subprocess.run(
        [sys.executable, "-c", f"import progress; print(progress.duration({seconds}))"],
        capture_output=True, text=True, check=True, cwd=TOOLS,
    )  # fmt: skip
    assert found.stdout.strip() == text


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="counts processes in /proc")
def test_burners_burn_and_end_with_the_command() -> None:
    count = "import pathlib, os; print(pathlib.Path(f'/proc/{os.getppid()}/task/{os.getppid()}/children').read_text())"
    done = run_tool("busy.py", "2", "--", sys.executable, "-c", f"{count}; raise SystemExit(5)")
    assert done.returncode == 5
    pids = done.stdout.split()
    assert len(pids) == 3  # two burners, and the command itself
    ends = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < ends
        time.sleep(0.05)


@pytest.mark.parametrize("words", [[], ["2"], ["two", "--", "true"], ["2", "true", "--"]])
def test_burners_without_a_command_are_refused(words: list[str]) -> None:
    assert run_tool("busy.py", *words).returncode == 2
