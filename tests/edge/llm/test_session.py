"""A language model in a process of its own, as its clients see it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "llama_cpp.gguf"

# Reads a prompt of minutes, sends itself a signal meanwhile, and prints why the answer ended.
CANCELLED_BY_A_SIGNAL = """
import signal
import sys
import threading
import time

from edge.llm.session import open_session
from runtimes.llm.session import LoadOptions, TextOptions

cancel = threading.Event()

def handler(number, frame):
    time.sleep(0.2)
    cancel.set()

signal.signal(signal.SIGUSR1, handler)
main = threading.main_thread().ident
with open_session(sys.argv[1], LoadOptions(context=65536, threads=1)) as session:
    prompt = [3 + i % 280 for i in range(60000)]
    answer = session.generate(prompt, TextOptions(max_tokens=1, temperature=0), cancel)
    threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGUSR1)).start()
    print([token.finish.reason for token in answer if token.finish])
"""


def test_a_signal_with_a_slow_handler_cancels_the_reading_of_a_long_prompt(tmp_path) -> None:
    """A handler that outlasts the wait for the next token must not make that wait endless.

    In a process of its own: OpenVINO, which other tests load into this one, can leave it a signal stack that is gone,
    and then a signal ends the process.
    """
    pytest.importorskip("llama_cpp")
    data = MODEL.read_bytes()
    key = b"llama.context_length" + (4).to_bytes(4, "little")  # the type: uint32
    place = data.index(key) + len(key)
    long = tmp_path / "long.gguf"
    long.write_bytes(data[:place] + (65536).to_bytes(4, "little") + data[place + 4 :])
    command = [sys.executable, "-c", CANCELLED_BY_A_SIGNAL, str(long)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "['cancelled']", done.stderr
