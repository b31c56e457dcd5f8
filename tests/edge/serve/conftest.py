"""Real servers in separate processes, a browser, and a minimal HTTP client."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from email.message import Message
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtimes.llm.llama_cpp.server_program import compiled_server
from tests.real_data import real_data

ROOT = Path(__file__).parents[3]
_SCRIPTED = Path(__file__).with_name("scripted_server.py")


class Server:
    """A server's process; `told` is the JSON line that it prints once it answers."""

    def __init__(self, command: list[str], log: Path, **environment: str) -> None:
        self._log = log
        with log.open("w") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, *command],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise AssertionError(f"the server ended: {self.log()}")
        self.told = json.loads(line)
        self.address = self.told["address"]
        self.port = int(self.address.rpartition(":")[2])

    def log(self) -> str:
        return self._log.read_text()

    def get(self, path: str, **headers: str) -> tuple[int, Message, str]:
        return self._ask(urllib.request.Request(self.address + path, headers=headers))

    def post(self, path: str, body: object, **headers: str) -> tuple[int, Message, dict]:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        heads = {"content-type": "application/json", **headers}
        status, head, text = self._ask(urllib.request.Request(self.address + path, data, heads))
        return status, head, json.loads(text)

    def metric(self, name: str) -> float:
        lines = self.get("/metrics")[2].splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def raw(self, head: str, body: bytes = b"") -> socket.socket:
        """Send a request and return the connection, without reading the response."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=300)
        sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return sock

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(120)
        self.process.stdout.close()
        return status

    def _ask(self, request: urllib.request.Request) -> tuple[int, Message, str]:
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()


@pytest.fixture
def start_scripted(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Return a function that starts a server with the scripted llama-server: `start_scripted(queue=1, slots=1)`."""
    with ExitStack() as stack:

        def start(**options) -> Server:
            server = Server([str(_SCRIPTED), json.dumps(options)], tmp_path / f"{time.monotonic_ns()}.log")
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A scripted server that is shared by the tests that do not change it."""
    server = Server([str(_SCRIPTED), "{}"], tmp_path_factory.mktemp("scripted") / "log")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stories() -> Path:
    """The real model of 260,000 parameters."""
    if compiled_server() is None:
        pytest.importorskip("xllamacpp", reason="there is no llama-server")
    return real_data("llm/stories260K.gguf")


@pytest.fixture(scope="session")
def long_stories(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model with a trained context of 8192 tokens in its metadata, which tools need."""
    context = b"llama.context_length" + struct.pack("<I", 4)  # the type: uint32
    data = stories.read_bytes()
    place = data.index(context) + len(context)
    path = tmp_path_factory.mktemp("long") / "long.gguf"
    path.write_bytes(data[:place] + struct.pack("<I", 8192) + data[place + 4 :])
    return path


@pytest.fixture(scope="module")
def start_real(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Return a function that starts `edge serve` with the real model."""
    with ExitStack() as stack:

        def start(*arguments: str, model: Path = stories, **environment: str) -> Server:
            command = ["-m", "edge", "serve", str(model), "--json", "--port", "0", "--threads", "1", *arguments]
            server = Server(command, tmp_path_factory.mktemp("real") / "log", **environment)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def real(start_real) -> Server:
    return start_real("--template", "plain", "--slots", "3", "--queue", "60")


@pytest.fixture
def chat() -> Callable[..., dict]:
    """Return a function that builds the body of a chat request."""
    return lambda text, **more: {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def read_stream() -> Callable[..., SimpleNamespace]:
    """Return a function that posts a streaming request: the joined text, the last finish_reason, and the events."""

    def read(server: Server, path: str, body: dict, on_event: Callable[[], None] = lambda: None) -> SimpleNamespace:
        data = json.dumps({**body, "stream": True}).encode()
        events = []
        with urllib.request.urlopen(urllib.request.Request(server.address + path, data), timeout=120) as answer:
            for line in answer:
                if line.startswith(b"data: "):
                    events.append(line[6:].strip())
                    on_event()
        is_done = events[-1] == b"[DONE]"
        found = [json.loads(event) for event in events if event != b"[DONE]"]
        choices = [event["choices"][0] for event in found if event.get("choices")]
        texts = [choice["text"] if "text" in choice else choice["delta"].get("content", "") for choice in choices]
        reason = choices[-1]["finish_reason"] if choices else None
        return SimpleNamespace(events=found, texts=texts, text="".join(texts), reason=reason, is_done=is_done)

    return read


@pytest.fixture(scope="module")
def driver(browser):
    return browser()


@pytest.fixture
def page(driver, scripted, until):
    """The page of the scripted server, in a browser that has never seen it."""
    from tests.edge.serve.page import Page

    driver.get(scripted.address)
    driver.execute_script("localStorage.clear()")
    driver.get_log("browser")
    return Page(driver, until, scripted.address)
