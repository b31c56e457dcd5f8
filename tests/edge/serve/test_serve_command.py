"""`edge serve` as a process: what it prints, how it ends, and what it refuses."""

import json
import re
import signal
import socket
import subprocess
import sys
import threading

import pytest

from runtimes.llm.llama_cpp.server_program import compiled_server


def _edge(*arguments: str, **more) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "edge", "serve", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **more)


def test_a_port_in_use_is_one_line(stories) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = _edge(str(stories), "--port", str(other.getsockname()[1]))
    assert done.returncode == 7
    assert re.match(r"edge: port \d+ is in use", done.stderr)


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        (("--port", "65536"), 2),
        (("--host", "no.such.host.invalid"), 7),
        (("--api-key-file", "missing"), 3),
        (("--template", "chatlm"), 2),
        (("--slots", "0"), 2),
        (("--", "--host", "0.0.0.0"), 2),
        (("--", "--no-such-option"), 2),
        (("--runtime", "litert"), 2),
    ],
)
def test_wrong_words_are_one_error(stories, arguments, status) -> None:
    done = _edge(str(stories), "--port", "0", *arguments)
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr


def test_others_are_let_in_with_a_new_key_only(start_real) -> None:
    server = start_real("--host", "0.0.0.0", "--template", "plain")
    key = server.told["key"]
    assert len(key) >= 32
    assert server.told["link"] == f"{server.address}/#key={key}"
    server.address = f"http://127.0.0.1:{server.port}"
    assert server.get("/v1/models")[0] == 401
    assert server.get("/v1/models", Authorization=f"Bearer {key}")[0] == 200


def test_a_given_key_is_not_printed(start_real, tmp_path) -> None:
    (tmp_path / "key").write_text("correct-horse-battery\n")
    server = start_real("--api-key-file", str(tmp_path / "key"), "--template", "plain")
    assert server.told["key"] is None
    assert "correct-horse" not in json.dumps(server.told)
    assert server.get("/v1/models", Authorization="Bearer correct-horse-battery")[0] == 200


def test_the_page_of_llama_cpp_is_shown_where_the_server_carries_it(start_real, tmp_path) -> None:
    if compiled_server() is None:
        pytest.skip("xllamacpp takes no --path")
    (tmp_path / "index.html").write_text("<h1>theirs</h1>")
    (tmp_path / "bundle.js").write_text("theirs()")
    words = ("--page", "llama", "--host", "0.0.0.0", "--template", "plain", "--", "--path", str(tmp_path))
    server = start_real(*words)
    server.address = f"http://127.0.0.1:{server.port}"
    assert [server.get(path)[::2] for path in ("/", "/bundle.js")] == [(200, "<h1>theirs</h1>"), (200, "theirs()")]
    assert [server.get(path)[0] for path in ("/page/app.js", "/v1/models", "/props", "/v1/models/a.js")] == [
        404,
        401,
        401,
        401,
    ]


def test_without_a_page_of_llama_cpp_it_is_refused(stories) -> None:
    done = _edge(str(stories), "--port", "0", "--page", "llama")
    assert (done.returncode, "carries no page" in done.stderr) == (4, True), done.stderr


def test_the_log_has_a_line_for_each_request(real, until) -> None:
    real.post("/v1/completions", {"prompt": "Lily", "max_tokens": 5})
    wanted = r"POST  /v1/completions  200  [\d.]+ s  \d+ prompt \(\d+ reused\) \+ 5 tokens, [\d.]+ tok/s\n"
    until(lambda: re.search(wanted, real.log()))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_streams_and_then_the_server(start_real, read_stream, number, status) -> None:
    server, done, begun = start_real("--template", "plain", "--slots", "1"), [], threading.Event()
    body = {"prompt": "Once upon a time", "max_tokens": 480, "temperature": 0}
    reader = threading.Thread(target=lambda: done.append(read_stream(server, "/v1/completions", body, begun.set)))
    reader.start()
    assert begun.wait(60)
    assert server.stop(number) == status
    reader.join(30)
    (found,) = done
    assert found.is_done or found.events[-1]["error"]["code"] == "stopping"
    assert "Traceback" not in server.log()


def test_a_second_interrupt_ends_it_at_once(start_scripted, chat, until) -> None:
    server = start_scripted()
    body = json.dumps(chat("read 60", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {len(body)}"
    with server.raw(head, body):
        until(lambda: server.metric("edge_slots_busy") == 1)
        server.process.send_signal(signal.SIGSTOP)  # both signals arrive before it can end by the first
        server.process.send_signal(signal.SIGTERM)
        server.process.send_signal(signal.SIGINT)
        server.process.send_signal(signal.SIGCONT)
        assert server.process.wait(120) in (130, 143, -signal.SIGTERM, -signal.SIGINT)
