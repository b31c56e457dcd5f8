"""What all commands share: one line for an error, JSON on request, and an orderly end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge.cli import COMMANDS, main

FULL = Path("/dev/full")


def _edge(*words: str, **more):
    return subprocess.run([sys.executable, "-m", "edge", *words], capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_one_line_and_a_hint(command, capsys):
    assert main([command, "--no-such-option"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("edge: ")
    assert err.splitlines()[1:] == [f"      see `edge {command} --help`"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("convert", "x", "--max-drop", "half"), "argument --max-drop: 'half' is not a number from 0 to 1"),
        (("worker", "--port", "0"), "argument --port: '0' is not a port: 1 to 65535"),
        (("worker", "--port", "99999"), "argument --port: '99999' is not a port: 1 to 65535"),
    ],
)
def test_a_value_that_an_option_does_not_take_is_named_in_plain_words(words, expected, capsys):
    assert main(list(words)) == 2
    assert expected in capsys.readouterr().err


def test_an_unknown_command_names_those_there_are(capsys):
    assert main(["frobnicate"]) == 2
    assert "'bench'" in capsys.readouterr().err


def test_an_unknown_option_of_edge_itself_is_named(capsys):
    assert main(["--bogus"]) == 2
    assert capsys.readouterr().err == "edge: edge does not take --bogus\n      see `edge --help`\n"


@pytest.mark.parametrize(
    ("word", "near"), [("--thread-s", "--threads"), ("--secnods=3", "--seconds"), ("--bill-s", "--bill")]
)
def test_a_misspelt_option_gets_the_nearest_one(word, near, capsys):
    assert main(["bench", "a.onnx", word]) == 2
    assert capsys.readouterr().err == f"edge: edge bench does not take {word}\n      did you mean {near}?\n"


def test_wrong_words_are_json_for_machines(capsys):
    assert main(["bench", "a.onnx", "--threads", "x", "--json"]) == 2
    error = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert set(error) == {"error", "message", "hint"}
    assert error["error"] == "usage"


@pytest.mark.skipif(not FULL.exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize("as_json", [False, True])
def test_a_full_disk_is_an_error_of_this_machine(as_json):
    with FULL.open("w") as full:
        command = [sys.executable, "-m", "edge", "devices", *(["--json"] if as_json else [])]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 7
    (message, *_) = done.stderr.splitlines()
    assert (json.loads(message)["error"] == "host") if as_json else message.startswith("edge: the output: ")
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_a_traceback_is_shown_only_with_debug():
    assert "Traceback" not in _edge("inspect", "absent.onnx").stderr
    assert "Traceback" in _edge("inspect", "absent.onnx", "--debug").stderr


@pytest.mark.parametrize(
    "interrupted",
    [
        "raise KeyboardInterrupt",
        """exec('raise KeyboardInterrupt')""",  # as when a dataclass is defined
        "type('C', (), {'x': type('X', (), {'__set_name__': lambda *_: exec('raise KeyboardInterrupt')})()})",
    ],
)
def test_ctrl_c_has_one_status_wherever_it_comes(interrupted: str) -> None:
    code = f"import sys, edge.cli\ndef run(words):\n    {interrupted}\nedge.cli._run = run\nsys.exit(edge.cli.main([]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "edge: stopped\n")


@pytest.fixture
def heeded():
    """Has the programs that are begun heed a signal, though these tests run under `nohup`."""
    before = {}

    def heed(number):
        before[number] = signal.signal(number, signal.SIG_DFL)

    yield heed
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes without a signal")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_worker_too(number, tmp_path, heeded):
    heeded(number)
    (tmp_path / "a.null").write_bytes(b"x")
    words = [sys.executable, "-m", "edge", "bench", "a.null", "--protocol", "published", "--rounds", "600"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment) as process:
        process.stderr.readline()
        process.send_signal(number)
        process.stderr.read()  # its end is the worker's end too: the worker holds no copy, but the command waits for it
        assert process.wait(timeout=120) == 128 + number
    assert [path.name for path in tmp_path.iterdir()] == ["a.null"]


def test_options_may_stand_between_the_words(capsys):
    words = ["run", "absent-model", "--threads", "1", "one.jpg", "--json", "two.jpg"]
    assert main(words) == 3
    assert "absent-model" in capsys.readouterr().err  # it came to looking for the model
    assert main(["run", "absent-model", "--threads", "1", "one.jpg", "--nonsense"]) == 2
    assert "edge run does not take --nonsense" in capsys.readouterr().err
    assert main(["inspect", "absent.onnx", "--json", "another.onnx"]) == 2
    assert "edge inspect does not take another.onnx" in capsys.readouterr().err
