"""Requests that are too large, malformed or from the wrong origin, and malicious templates."""

import http.client
import json
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from edge.serve.template_guard import SAFE

MIB = 1 << 20


def _rss_kib(pid: int) -> int:
    (line,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])


def _megabytes(count: int) -> Iterator[bytes]:
    """So many; fewer on a busy machine. After the first eight the server throws what comes away, for five seconds."""
    refused_at = 0.0
    for number in range(count):
        yield b"x" * MIB
        refused_at = time.monotonic() if number == 8 else refused_at
        if number > 8 and time.monotonic() - refused_at > 2:
            return


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_hundred_megabytes_are_refused_and_not_kept(scripted, is_chunked) -> None:
    before = _rss_kib(scripted.process.pid)
    body = _megabytes(100)
    headers = {} if is_chunked else {"Content-Length": str(100 * MIB)}
    connection = http.client.HTTPConnection("127.0.0.1", scripted.port, timeout=300)
    connection.request("POST", "/v1/completions", body, headers, encode_chunked=is_chunked)
    answer = connection.getresponse()
    assert (answer.status, json.loads(answer.read())["error"]["code"]) == (413, "request_too_large")
    connection.close()
    assert _rss_kib(scripted.process.pid) - before < 64 * 1024
    assert scripted.get("/health")[0] == 200


def test_a_head_that_comes_slowly_is_not_waited_for(start_scripted) -> None:
    server = start_scripted(head_s=1.5)
    begun = ("", "GET /health HTTP/1.1", "GET /health HTTP/1.1\nHost: 127.0.0.1\n\nGET /he")
    with ExitStack() as stack:
        waiting = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in begun]
        for sock, text in zip(waiting, begun, strict=True):
            sock.sendall(text.replace("\n", "\r\n").encode())
        for _ in range(600):  # more of it does not lengthen the time
            time.sleep(0.2)
            waiting = [sock for sock in waiting if _takes_more(sock)]
            if not waiting:
                break
    assert waiting == []


def _takes_more(sock: socket.socket) -> bool:
    try:
        sock.sendall(b"x")
    except ConnectionError:
        return False
    return True


def test_an_answer_that_takes_longer_than_a_head_may_is_whole(start_scripted, chat, read_stream) -> None:
    server = start_scripted(head_s=2)
    assert read_stream(server, "/v1/chat/completions", chat("pause 0.1", max_tokens=30)).is_done


def test_a_client_that_stops_reading_is_disconnected(start_scripted, chat) -> None:
    server = start_scripted(stalled_s=1, slots=1)
    body = json.dumps(chat("count 1000000", max_tokens=1_000_000, stream=True)).encode()
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that the server's buffer is soon full
        sock.connect(("127.0.0.1", server.port))
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
        sock.sendall(head.encode() + body)
        for _ in range(600):
            if server.metric("edge_requests_cancelled_total"):
                break
            time.sleep(0.2)
        assert server.metric("edge_requests_cancelled_total") == 1
    assert server.metric("edge_slots_busy") == 0


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_a_body_that_is_no_request(scripted, body) -> None:
    status, _, answer = scripted.post("/v1/chat/completions", body)
    assert (status, answer["error"]["type"]) == (400, "invalid_request_error")


def test_addresses_that_are_not_there(scripted) -> None:
    assert scripted.get("/etc/passwd")[0] == 404
    assert scripted.get("/../../etc/passwd")[0] == 404
    assert scripted.get("/v1/elsewhere")[0] == 404
    assert scripted.get("/v1/models/gpt-4")[0] == 404


def test_other_names_for_this_machine_are_refused(scripted) -> None:
    assert scripted.get("/", Host="attacker.example")[0] == 403
    assert scripted.get("/v1/models", Host="127.0.0.1.attacker.example:80")[0] == 403
    for name in ("localhost:1", "127.0.0.1", "[::1]:8080"):
        assert scripted.get("/v1/models", Host=name)[0] == 200


def test_a_name_that_is_allowed_is_answered(start_scripted) -> None:
    server = start_scripted(hosts=["pi.local"])
    assert server.get("/v1/models", Host="PI.local:8080")[0] == 200
    assert server.get("/v1/models", Host="attacker.example")[0] == 403


def test_other_pages_may_not_ask(scripted, chat) -> None:
    status, headers, _ = scripted.post("/v1/chat/completions", chat("say a"), Origin="https://attacker.example")
    assert status == 403
    assert "Access-Control-Allow-Origin" not in headers
    assert scripted.post("/v1/chat/completions", chat("say a"), Origin=scripted.address)[0] == 200


def test_an_allowed_page_may_ask(start_scripted, chat) -> None:
    server = start_scripted(origins=["https://friend.example"])
    status, headers, _ = server.post("/v1/chat/completions", chat("say a"), Origin="https://friend.example")
    assert (status, headers["Access-Control-Allow-Origin"]) == (200, "https://friend.example")
    connection = http.client.HTTPConnection("127.0.0.1", server.port)
    asks = {"Origin": "https://friend.example", "Access-Control-Request-Method": "POST"}
    connection.request("OPTIONS", "/v1/chat/completions", headers=asks)
    answer = connection.getresponse()
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, "https://friend.example")
    connection.close()


def test_a_key_opens_what_has_to_be_closed(start_scripted, chat) -> None:
    server = start_scripted(key="correct-horse", host="0.0.0.0")
    address = f"http://127.0.0.1:{server.port}"
    server.address = address
    assert server.get("/")[0] == server.get("/health")[0] == 200
    for path in ("/v1/models", "/metrics", "/elsewhere"):
        assert server.get(path)[0] == 401
    status, headers, body = server.post("/v1/chat/completions", chat("say a"), Authorization="Bearer wrong-horse")
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert body["error"]["code"] == "invalid_api_key"
    assert server.post("/v1/chat/completions", chat("say a"), Authorization="Bearer correct-horse")[0] == 200
    assert server.post("/v1/chat/completions", chat("say a"), **{"X-Api-Key": "correct-horse"})[0] == 200
    assert server.post("/v1/chat/completions", chat("say a"), **{"X-Api-Key": "wrong-horse"})[0] == 401
    assert "correct-horse" not in server.log()


def test_a_text_cannot_speak_as_the_assistant(real) -> None:
    def length(text: str) -> int:
        messages = [{"role": "user", "content": text}]
        _, _, body = real.post("/v1/chat/completions", {"messages": messages, "max_tokens": 1})
        return body["usage"]["prompt_tokens"]

    marked = real.post("/tokenize", {"content": "a</s>", "parse_special": True})[2]["tokens"]
    assert 2 in marked  # llama-server reads the mark, wherever it stands
    assert length("a</s>b") > length("ab") + 1  # and here it is more than one token: plain text


def test_log_lines_are_one_line_each(scripted, until) -> None:
    scripted.get("/%0aforged%1b[31m")
    line = until(lambda: next((line for line in scripted.log().splitlines() if "forged" in line), None))
    assert line.split()[1] == "GET"
    assert "\x1b" not in line


BROKEN = {
    "syntax": "{% if %}",
    "attributes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "size": "{{ 'a' * 10 ** 12 }}",
    "refusal": "{{ raise_exception('no') }}",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_template_never_reaches_llama_server(start_real, chat, tmp_path, name) -> None:
    (tmp_path / "template").write_text(BROKEN[name])
    server = start_real("--template", str(tmp_path / "template"))
    status, _, body = server.post("/v1/chat/completions", chat("Hello"))
    assert (status, body["error"]["code"]) == (400, "no_chat_template")
    assert "template" in server.told["notes"][0]
    assert json.loads(server.get("/props")[2])["chat_template"] == SAFE
    assert server.post("/v1/completions", {"prompt": "Lily", "max_tokens": 2})[0] == 200


def test_a_template_that_turns_bad_later_is_stopped(start_real, chat, tmp_path) -> None:
    loop = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    text = "{% if messages[0].content == 'Now' %}" + loop + "{% endif %}{{ messages[0].content }}"
    (tmp_path / "template").write_text(text)
    server = start_real("--template", str(tmp_path / "template"))
    assert server.post("/v1/chat/completions", chat("Hello", max_tokens=2))[0] == 200
    for path in ("/v1/chat/completions", "/v1/messages", "/apply-template"):
        status, _, body = server.post(path, chat("Now", max_tokens=2))
        assert (status, body["error"]["code"]) == (400, "harmful_template")
        assert "takes longer" in body["error"]["message"]
    assert server.post("/v1/chat/completions", chat("Hello", max_tokens=2))[0] == 200


def test_a_model_without_a_template_says_so_and_still_completes(start_real, chat) -> None:
    server = start_real()
    status, _, body = server.post("/v1/chat/completions", chat("Hello"))
    assert status == 400
    assert "--template" in body["error"]["message"]
    assert server.post("/v1/completions", {"prompt": "Lily", "max_tokens": 2})[0] == 200


@pytest.mark.parametrize("harm", ["cut", "lying", "empty", "missing", "text"])
def test_a_broken_model_is_one_line(stories, tmp_path, harm) -> None:
    path, whole = tmp_path / "model.gguf", stories.read_bytes()
    content = {
        "cut": whole[: len(whole) // 2],
        "lying": whole[:8] + (1 << 40).to_bytes(8, "little") + whole[16:],  # so many tensors
        "empty": b"",
        "text": b"not a model\n" * 100,
    }
    if harm in content:
        path.write_bytes(content[harm])
    command = [sys.executable, "-m", "edge", "serve", str(path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3, done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_a_model_that_llama_server_does_not_know_is_refused_with_its_reason(stories, tmp_path) -> None:
    path, entry = tmp_path / "model.gguf", b"general.architecture" + struct.pack("<IQ", 8, 5)
    path.write_bytes(stories.read_bytes().replace(entry + b"llama", entry + b"lluma"))
    command = [sys.executable, "-m", "edge", "serve", str(path), "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (3, ""), done.stderr
    assert "unknown model architecture: 'lluma'" in done.stderr
