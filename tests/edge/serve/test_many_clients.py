"""Several clients at once, clients that disconnect, and an engine that dies."""

import asyncio
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from edge.serve.llama_server import LlamaServer
from runtimes.llm.llama_cpp.server_program import Program

TOLD = "Once upon a time"


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]


def _engine(server) -> int:
    """The process that holds the model."""
    (found,) = [
        pid for pid in _children(server.process.pid) if b"llama.sock" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]
    return found


def _rss_kib(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1])


def _leaver(server, words: int) -> None:
    """Ask for a stream, read some of it, and close the connection."""
    body = json.dumps({"prompt": TOLD, "max_tokens": 400, "temperature": 0, "stream": True}).encode()
    head = f"POST /v1/completions HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {len(body)}"
    with server.raw(head, body) as sock:
        seen = b""
        while seen.count(b"data: ") < words and (part := sock.recv(4096)):
            seen += part


def test_two_long_streams_are_what_each_is_alone(real, read_stream) -> None:
    asked = [{"prompt": prompt, "max_tokens": 200, "temperature": 0} for prompt in (TOLD, "Tom and Sue saw a dog")]
    alone = [read_stream(real, "/v1/completions", body) for body in asked]
    with ThreadPoolExecutor(2) as threads:
        together = list(threads.map(lambda body: read_stream(real, "/v1/completions", body), asked))
    for one, other in zip(alone, together, strict=True):
        assert other.is_done
        assert other.reason is not None
        assert other.text == one.text
    assert alone[0].text != alone[1].text


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_fifty_clients_that_leave_take_nothing_with_them(real, until, read_stream) -> None:
    expected = read_stream(real, "/v1/completions", {"prompt": TOLD, "max_tokens": 30, "temperature": 0}).text
    pids = (real.process.pid, _engine(real))

    def leave(clients: int) -> None:
        with ThreadPoolExecutor(clients) as threads:
            list(threads.map(lambda index: _leaver(real, index % 4), range(clients)))
        until(lambda: real.metric("edge_slots_busy") == 0 and real.metric("edge_queue_length") == 0)

    leave(10)  # buffers and caches find their size
    before = [_rss_kib(pid) for pid in pids]
    leave(50)
    after = [_rss_kib(pid) for pid in pids]
    assert all(late - early < 16 * 1024 for early, late in zip(before, after, strict=True)), (before, after)
    assert real.metric("edge_requests_cancelled_total") >= 50
    again = read_stream(real, "/v1/completions", {"prompt": TOLD, "max_tokens": 30, "temperature": 0})
    assert again.text == expected


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_the_engine_yields_to_the_proxy_and_never_gets_ctrl_c(real) -> None:
    """Only within a session does Linux compare nice values; otherwise each token would wait for a core."""
    proxy, engine = real.process.pid, _engine(real)
    assert os.getsid(engine) == os.getsid(proxy)
    assert os.getpgid(engine) != os.getpgid(proxy)
    assert os.getpriority(os.PRIO_PROCESS, engine) == min(os.getpriority(os.PRIO_PROCESS, proxy) + 1, 19)


def test_more_than_slots_and_queue_are_asked_to_come_back(start_scripted, chat, until, read_stream) -> None:
    server = start_scripted(queue=1, slots=1)
    with ThreadPoolExecutor(2) as threads:
        long = threads.submit(read_stream, server, "/v1/chat/completions", chat("pause 0.01", max_tokens=200))
        until(lambda: server.metric("edge_slots_busy") == 1)
        queued = threads.submit(read_stream, server, "/v1/chat/completions", chat("say queued"))
        until(lambda: server.metric("edge_queue_length") == 1)
        status, headers, body = server.post("/v1/chat/completions", chat("say refused"))
        assert (status, body["error"]["code"]) == (429, "queue_full")
        assert int(headers["Retry-After"]) >= 1
        assert queued.result().text == "queued"
        assert long.result().reason == "length"
    assert server.metric("edge_requests_rejected_total") == 1


def test_a_client_that_leaves_the_queue_leaves_room(start_scripted, chat, until) -> None:
    server = start_scripted(queue=1, slots=1)
    body = json.dumps(chat("pause 0.05", stream=True)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {len(body)}"
    with server.raw(head, body):
        until(lambda: server.metric("edge_slots_busy") == 1)
        with server.raw(head, body):
            until(lambda: server.metric("edge_queue_length") == 1)
        until(lambda: server.metric("edge_queue_length") == 0)
        assert server.metric("edge_slots_busy") == 1
    until(lambda: server.metric("edge_slots_busy") == 0)
    assert server.post("/v1/chat/completions", chat("say free"))[0] == 200


def test_a_killed_engine_that_refuses_connections_already_is_waited_for() -> None:
    engine = LlamaServer(Program(("llama-server",), is_prebuilt=False), [], "model.gguf")
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        engine._process = process
        asyncio.run(_end_while(engine.wait_until_ended(), process))
        assert process.returncode == -signal.SIGKILL
    engine._process = None
    engine.close()


async def _end_while(waiting, process) -> None:
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)  # it has begun to wait
    process.kill()
    await task


def test_an_engine_that_is_killed_ends_its_streams_and_comes_back(start_real, stories, tmp_path) -> None:
    context = b"llama.context_length" + struct.pack("<I", 4)  # the type: uint32
    data = stories.read_bytes()
    place = data.index(context) + len(context)
    (tmp_path / "long.gguf").write_bytes(data[:place] + struct.pack("<I", 65536) + data[place + 4 :])
    words = ("--context", "16384", "--slots", "1", "--template", "plain")
    server = start_real(*words, model=tmp_path / "long.gguf")
    # An answer under this grammar ends with the context alone, seconds later than its beginning.
    body = {"prompt": TOLD, "max_tokens": 16000, "stream": True, "grammar": 'root ::= [a-z ]+ "\x01"'}
    asked = urllib.request.Request(server.address + "/v1/completions", json.dumps(body).encode())
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert answer.readline().startswith(b"data: ")
        os.kill(_engine(server), signal.SIGKILL)
        events = [line for line in answer if line.startswith(b"data: ")]
    assert json.loads(events[-1][6:])["error"]["code"] == "engine_unavailable"
    status, _, found = server.post("/v1/completions", {"prompt": TOLD, "max_tokens": 12, "temperature": 0})
    assert status == 200
    assert found["choices"][0]["text"].startswith(", there was a little girl")
    assert server.metric("edge_engine_restarts") == 1
    server.stop()


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_sees_the_end_of_the_engine_can_ask_again_at_once(start_scripted, chat, streams) -> None:
    server = start_scripted()
    data = json.dumps(chat("die", stream=streams)).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\nHost: 127.0.0.1\nContent-Length: {len(data)}"
    with server.raw(head, data) as sock:
        assert b"engine_unavailable" in _until_end(sock)
    status, _, found = server.post("/v1/chat/completions", chat("say alive"))
    assert (status, found["choices"][0]["message"]["content"]) == (200, "alive")


def _until_end(sock) -> bytes:
    seen = b""
    while b"engine_unavailable" not in seen and (part := sock.recv(4096)):
        seen += part
    return seen


def test_an_engine_that_dies_between_requests_is_not_noticed(real) -> None:
    engine = _engine(real)
    os.kill(engine, signal.SIGKILL)
    while not _is_dead(engine):  # a request that it had taken would fail with it
        time.sleep(0.01)
    status, _, _ = real.post("/v1/completions", {"prompt": TOLD, "max_tokens": 3})
    assert status == 200


def _is_dead(pid: int) -> bool:
    """Whether a process has ended, even if nobody has waited for it yet.

    Its first thread is a zombie as soon as it is killed; the others may hold the socket a little longer.
    """
    try:
        is_zombie = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
        return is_zombie and len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    except OSError:
        return True


def test_an_engine_that_cannot_come_back_is_a_503_with_its_reason(start_scripted, chat) -> None:
    server = start_scripted(fails_again=True)
    status, _, body = server.post("/v1/chat/completions", chat("die"))
    assert (status, body["error"]["code"]) == (503, "engine_unavailable")
    assert server.get("/health")[0] == 503
    status, headers, body = server.post("/v1/chat/completions", chat("say anything"))
    assert (status, body["error"]["code"]) == (503, "engine_unavailable")
    assert "too little memory" in body["error"]["message"]
    assert int(headers["Retry-After"]) > 0


def test_a_stream_that_waits_for_a_slot_hears_that_the_server_lives(start_scripted, chat) -> None:
    server = start_scripted(slots=1, beat_s=0.05)
    body = json.dumps(chat("read 1", stream=True)).encode()
    with urllib.request.urlopen(urllib.request.Request(server.address + "/v1/chat/completions", body)) as answer:
        lines = answer.read().splitlines()
    assert lines.count(b": the model is working") >= 2
    assert lines[-2:] == [b"data: [DONE]", b""]


def test_an_error_behind_a_sign_of_life_is_an_event(start_scripted, chat) -> None:
    server = start_scripted(slots=1, beat_s=0.05)
    body = json.dumps(chat("read 0.5", stream=True)).encode()
    with urllib.request.urlopen(urllib.request.Request(server.address + "/v1/chat/completions", body)) as answer:
        assert answer.readline().startswith(b": ")
        server.process.send_signal(signal.SIGTERM)
        events = [line for line in answer if line.startswith(b"data: ")]
    assert json.loads(events[-1][6:])["error"]["code"] == "stopping"
