"""Real servers in processes of their own, a browser, and small HTTP."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
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

ROOT = Path(__file__).parents[3]
_SCRIPTED = Path(__file__).with_name("scripted_server.py")
_BROWSER_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
)  # fmt: skip


class Server:
    """A server's process; `told` is the JSON line that it printed when it answered."""

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
        assert line, f"the server ended: {self.log()}"
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
        """A connection on which a request has been sent, and nothing read."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=300)
        sock.sendall(head.replace("\n", "\r\n").encode() + b"\r\n\r\n" + body)
        return sock

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        status = self.process.wait(30)
        self.process.stdout.close()
        return status

    def _ask(self, request: urllib.request.Request) -> tuple[int, Message, str]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.headers, error.read().decode()


@pytest.fixture
def start_scripted(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server around the scripted session: `start_scripted(queue=1, facts={"context": 100})`."""
    with ExitStack() as stack:

        def start(**options) -> Server:
            server = Server([str(_SCRIPTED), json.dumps(options)], tmp_path / f"{time.monotonic_ns()}.log")
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One scripted server for the tests that leave it as it was."""
    server = Server([str(_SCRIPTED), "{}"], tmp_path_factory.mktemp("scripted") / "log")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def stories() -> Path:
    """The real model of 260,000 parameters."""
    pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed")
    folder = Path(os.environ.get("EDGE_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir() and "EDGE_DATA" not in os.environ:
        pytest.skip("no real data: set EDGE_DATA")
    return folder / "llm" / "stories260K.gguf"


@pytest.fixture(scope="module")
def start_real(stories: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts `edge serve` on the real model."""
    with ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> Server:
            command = ["-m", "edge", "serve", str(stories), "--json", "--port", "0", "--threads", "1", *arguments]
            server = Server(command, tmp_path_factory.mktemp("real") / "log", **environment)
            stack.callback(server.stop)
            return server

        yield start


@pytest.fixture(scope="module")
def real(start_real) -> Server:
    return start_real("--template", "plain", "--slots", "3", "--queue", "60")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory):
    """Opens headless Chromium: `browser(390, 844, touch=True)`."""
    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not (program and driver):
        assert not os.environ.get("CI"), "CI has to install chromium and chromium-driver"
        pytest.skip("no browser: apt-get install chromium chromium-driver")
    webdriver = pytest.importorskip("selenium.webdriver")
    with ExitStack() as stack:

        def open_page(width: int = 1280, height: int = 850, *, touch: bool = False):
            options = webdriver.ChromeOptions()
            options.binary_location = program
            options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
            profile = tmp_path_factory.mktemp("profile")
            for flag in (*_BROWSER_FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
                options.add_argument(flag)
            if touch:
                metrics = {"width": width, "height": height, "pixelRatio": 2, "touch": True}
                options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
            found = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
            stack.callback(found.quit)
            scheme = {"name": "prefers-color-scheme", "value": "light"}
            found.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
            return found

        yield open_page


def _wait_until(condition: Callable[[], object], seconds: float = 30) -> object:
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)
    return found


@pytest.fixture
def until() -> Callable[..., object]:
    return _wait_until


@pytest.fixture
def chat() -> Callable[..., dict]:
    """The body of a chat request."""
    return lambda text, **more: {"messages": [{"role": "user", "content": text}], **more}


@pytest.fixture
def read_stream() -> Callable[..., SimpleNamespace]:
    """Posts a body with "stream" and reads all of it: texts joined, the last finish_reason, the events."""

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
