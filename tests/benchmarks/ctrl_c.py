"""How long does Ctrl+C take to return to the chat's input line? See README.md in this folder."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.edge.chat.terminals import Terminal

MAX_S = 0.5
INPUT_LINE = "\x1b[?2004h"
LOADING_S = 600
QUESTIONS = {"reading": "Once upon a time. " * 50, "answering": "Once"}


def chat(model: Path, folder: Path, question: str) -> Terminal:
    """Yield a chat at its input line, with a question that /retry repeats."""
    saved = folder / "chat.json"
    saved.write_text(json.dumps({"edge_chat": 1, "messages": [{"role": "user", "content": question}]}))
    words = [str(model), "--template", "plain", "--context", "2048", "--resume", str(saved)]
    environment = {**os.environ, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1", "EDGE_CHATS": str(folder)}
    terminal = Terminal([sys.executable, "-m", "edge", "chat", *words], env=environment, cwd=folder, seconds=LOADING_S)
    terminal.expect_exact(INPUT_LINE)
    return terminal


def interrupt(terminal: Terminal, pause_s: float) -> float:
    """Ask again, press Ctrl+C after a while, and return the seconds until the input line is back."""
    terminal.send("/retry\r")
    terminal.expect_exact("\x1b[?2004l")  # the line was accepted
    time.sleep(pause_s)
    terminal.press_ctrl("c")
    start = time.perf_counter()
    terminal.expect_exact("stopped")
    terminal.expect_exact(INPUT_LINE)
    return time.perf_counter() - start


def main() -> int:
    """Interrupt reading and answering at random moments; status 1 if one took longer than MAX_S."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tries", type=int, default=10)
    args = parser.parse_args()
    randomly = random.Random(0)
    slowest = 0.0
    for phase, question in QUESTIONS.items():
        with tempfile.TemporaryDirectory() as folder:
            terminal = chat(args.model.resolve(), Path(folder), question)
            found = sorted(interrupt(terminal, randomly.uniform(1, 4)) for _ in range(args.tries))
            terminal.end()
        slowest = max(slowest, found[-1])
        print(f"{phase:9}  median {found[len(found) // 2]:.3f} s   slowest {found[-1]:.3f} s   of {len(found)}")
    return 0 if slowest <= MAX_S else 1


if __name__ == "__main__":
    sys.exit(main())
