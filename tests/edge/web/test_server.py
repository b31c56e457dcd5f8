"""`edge web`: the artifact's own files, the headers that threads need, and nothing else."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from edge.web.jobs import PageJob
from edge.web.server import Server, address_of
from runtimes.artifact import Artifact
from runtimes.errors import HostError
from tests.edge.chat.terminals import Terminal

ROOT = Path(__file__).parents[3]


def _get(port: int, path: str, method: str = "GET", body: bytes | None = None) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, body)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_command_serves_the_folder_until_it_is_stopped(tflite: Path) -> None:
    command = [sys.executable, "-m", "edge", "web", str(tflite), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = json.loads(process.stdout.readline())
        port = int(told["address"].rstrip("/").rpartition(":")[2])
        status, headers, body = _get(port, "/")
        assert (status, body) == (200, (tflite / "index.html").read_bytes())
        assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert _get(port, "/page/app.js")[1]["Content-Type"] == "text/javascript"
        (tflite / "secret.txt").write_text("not of the artifact")
        for path in ("/secret.txt", "/../conftest.py", "/%2e%2e/conftest.py", "/page/", "/job/x"):
            assert _get(port, path)[0] == 404, path
        assert _get(port, "/job/x/answer", "POST", b"{}")[0] == 404
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    (tflite / "secret.txt").unlink()


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("ID/answer", b'{"passed": true}', 200),
        ("ID/answer", b"not JSON", 404),
        ("ID/answer", b"[]", 404),
        ("ID/other", b"{}", 404),
        ("guess/answer", b"{}", 404),
    ],
)
def test_a_job_is_answered_by_its_id(path, body, status, tflite: Path) -> None:
    job = PageJob(kind="verify")
    with Server(Artifact.open(tflite), jobs=job) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            assert _get(server.port, f"/job/{path.replace('ID', job.id)}", "POST", body)[0] == status
            assert _get(server.port, f"/job/{job.id}")[0] == 200
            assert _get(server.port, "/job/guess")[0] == 404
        finally:
            server.shutdown()
    kinds = [job.messages.get_nowait()[0] for _ in range(job.messages.qsize())]
    assert kinds == (["answer", "asked"] if status == 200 else ["asked"])


def test_a_phone_gets_a_code_to_scan_and_what_it_will_lack(tflite: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge", "web", str(tflite), "--host", "0.0.0.0", "--port", "0"]
    terminal = Terminal(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, cwd=tmp_path, seconds=120)
    try:
        terminal.expect(r"http://[\d.]+:\d+/")
        terminal.expect_exact("browsers allow no camera and only one thread")
        terminal.expect("[▀▄█]{8}")  # the code
    finally:
        terminal.end()


def test_a_browser_that_goes_away_is_no_error(tflite: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Server(Artifact.open(tflite)) as server:
        ended = threading.Event()
        end = server.shutdown_request
        server.shutdown_request = lambda request: (end(request), ended.set())
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            with socket.create_connection(("127.0.0.1", server.port), timeout=60) as client:
                # A small buffer, and a reset in place of a goodbye: the rest of the file cannot be sent.
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.sendall(b"GET /engine/litert_js/litert_wasm_internal.wasm.bin HTTP/1.1\r\n\r\n")
                assert client.recv(15) == b"HTTP/1.1 200 OK"
            assert ended.wait(60)
        finally:
            server.shutdown()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("host", ["..", "203.0.113.7", "no-such-host.invalid"])
def test_an_address_that_is_not_of_this_machine_is_one_clear_line(host: str) -> None:
    with pytest.raises(HostError) as caught:
        Server(Artifact.open(ROOT / "tests" / "compatibility" / "artifacts" / "onnx-fp32"), host)
    assert caught.value.message.startswith(host)
    assert caught.value.hint == "try --host 127.0.0.1"


def test_an_ipv6_address_is_served_too() -> None:
    try:
        server = Server(Artifact.open(ROOT / "tests" / "compatibility" / "artifacts" / "onnx-fp32"), "::1")
    except HostError:
        pytest.skip("this machine has no IPv6")
    with server:
        assert address_of(server, "::1") == f"http://[::1]:{server.port}/"
