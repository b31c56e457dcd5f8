"""`python -m tests.boards up` cleans up however it is ended."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

# The command with a board that only prints when it is taken down.
SCRIPT = """
import sys, types
from contextlib import contextmanager
from tests.boards import __main__ as command

@contextmanager
def standing(*_, **__):
    try:
        yield types.SimpleNamespace(config="config", name="board")
    finally:
        print("taken down", flush=True)

command.standing, command.get_root = standing, lambda: None
sys.argv = ["boards", "up"]
sys.exit(command.main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_board_is_stopped_when_its_command_is_ended(number: signal.Signals) -> None:
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ssh -F config board\n"
    process.send_signal(number)
    assert process.communicate(timeout=60)[0] == "taken down\n"
    assert process.returncode == 0
