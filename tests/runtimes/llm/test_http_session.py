"""What concerns engines behind a server only: the connection, and a server that is busy."""

from __future__ import annotations

import socket
import struct
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runtimes import registry
from runtimes.llm.session import LoadOptions, TextOptions

MODEL = Path(__file__).parents[1] / "models" / "llama_cpp.gguf"
LONG = 8192  # tokens: an answer of some thousand takes long enough


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """A real llama-server with one slot, and a model that says that it was trained for LONG tokens."""
    engine = registry.engine("xllamacpp")
    if not registry.is_installed(engine):
        pytest.skip("xllamacpp is not installed")
    data = MODEL.read_bytes()
    key = b"llama.context_length" + struct.pack("<I", 4)  # the type: uint32
    place = data.index(key) + len(key)
    model = tmp_path_factory.mktemp("model") / "long.gguf"
    model.write_bytes(data[:place] + struct.pack("<I", LONG) + data[place + 4 :])
    with engine.open_text(str(model), LoadOptions(context=LONG, slots=1, threads=1)) as found:
        yield found


def last(tokens):
    return list(tokens)[-1].finish


def test_reading_reads_and_makes_nothing(session):
    prompt = [5 + number % 200 for number in range(600)]
    parts = list(session.generate(prompt, TextOptions(max_tokens=0)))
    assert len(parts) == 1
    read = parts[0].finish
    assert (read.reason, read.tokens, read.prompt_tokens, read.reused_tokens) == ("length", 0, 600, 0)
    assert parts[0].text == ""
    again = last(session.generate([*prompt, 7], TextOptions(max_tokens=1)))
    assert again.reused_tokens >= 599


def test_who_waits_for_a_busy_server_can_leave_at_once(session):
    busy = session.generate([5, 6, 7], TextOptions(temperature=0, ignore_end=True, max_tokens=6000))
    next(busy)
    cancel = threading.Event()
    threading.Timer(0.1, cancel.set).start()
    waited = last(session.generate([9, 8, 7], TextOptions(max_tokens=5), cancel))
    assert (waited.reason, waited.tokens) == ("cancelled", 0)
    assert session._json("GET", "/slots")[0]["is_processing"]  # the other answer was not waited for,
    assert last(busy).tokens == 6000  # nor cut off


def test_a_server_that_does_not_answer_yet_can_be_left(session, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # as servers of before 2026 are while they read a prompt
        monkeypatch.setattr(session, "_parts", urlsplit(f"http://127.0.0.1:{silent.getsockname()[1]}"))
        cancel, found = threading.Event(), []
        options = TextOptions(max_tokens=5)
        waiting = threading.Thread(
            target=lambda: found.append(last(session.generate([9, 8, 7], options, cancel))), daemon=True
        )
        waiting.start()
        line, _ = silent.accept()
        with line:
            cancel.set()
            waiting.join(60)
    assert [finish.reason for finish in found] == ["cancelled"]


def test_the_time_of_reading_holds_the_wait_for_the_server(session):
    busy = session.generate([5, 6, 7], TextOptions(temperature=0, ignore_end=True, max_tokens=1000))
    next(busy)
    began = time.monotonic()
    finish = last(session.generate([9, 8, 7], TextOptions(max_tokens=1)))
    took = time.monotonic() - began
    # Without the wait it would be a hundredth; on a busy machine some of the time is neither's.
    assert 0.2 * took < finish.prompt_s + finish.generate_s <= took
    assert last(busy).tokens == 1000
