"""A language model in its own process, as its clients use it."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from edge.llm.session import open_session
from runtimes.llm.session import LoadOptions, TextOptions

MODEL = Path(__file__).parents[2] / "runtimes" / "models" / "llama_cpp.gguf"


def test_a_signal_with_a_slow_handler_cancels_the_reading_of_a_long_prompt(tmp_path) -> None:
    """A handler that outlasts the wait for the next token must not make that wait endless."""
    pytest.importorskip("llama_cpp")
    data = MODEL.read_bytes()
    key = b"llama.context_length" + (4).to_bytes(4, "little")  # the type: uint32
    place = data.index(key) + len(key)
    long = tmp_path / "long.gguf"
    long.write_bytes(data[:place] + (65536).to_bytes(4, "little") + data[place + 4 :])
    cancel = threading.Event()

    def handler(_number: int, _frame: object) -> None:
        time.sleep(0.2)
        cancel.set()

    before = signal.signal(signal.SIGUSR1, handler)
    main = threading.main_thread().ident or 0
    timer = threading.Timer(0.3, lambda: signal.pthread_kill(main, signal.SIGUSR1))
    try:
        with open_session(long, LoadOptions(context=65536, threads=1)) as session:
            prompt = [3 + i % 280 for i in range(60000)]
            answer = session.generate(prompt, TextOptions(max_tokens=1, temperature=0), cancel)
            timer.start()
            assert [token.finish.reason for token in answer if token.finish] == ["cancelled"]
    finally:
        # A signal that came after the handler has gone would end the process.
        timer.cancel()
        if timer.ident is not None:
            timer.join()
        signal.signal(signal.SIGUSR1, before)
