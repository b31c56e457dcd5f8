"""Serve the folder of a browser artifact: its own files alone, with the headers that threads need."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from edge.serve import listening
from runtimes.artifact import MANIFEST, Artifact
from runtimes.artifact.json_fields import JsonValue
from runtimes.errors import InputError

# SharedArrayBuffer, which threads need to share memory, only exists on isolated pages.
ISOLATION = (("Cross-Origin-Opener-Policy", "same-origin"), ("Cross-Origin-Embedder-Policy", "require-corp"))
# Not from the module mimetypes, whose table depends on the system.
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
_MAX_BODY_BYTES = 256 * 2**20
_CHUNK = 2**20


class Jobs(Protocol):
    """What the page is asked to do; `edge.web.jobs` implements it."""

    def get(self, path: str) -> bytes | None:
        """Return the content of `job/<path>`; None if it does not exist."""

    def post(self, path: str, body: bytes) -> bool:
        """Handle what the page posts to `job/<path>`; False if there is no such job."""


class Server(ThreadingHTTPServer):
    """The server of one artifact. `log` is called with a line for each request.

    Raises HostError if the address is in use, or is not one of this machine.
    """

    daemon_threads = True

    def __init__(
        self,
        artifact: Artifact,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        isolated: bool = True,
        jobs: Jobs | None = None,
        log: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.files = {name: artifact.path / name for name in (*artifact.manifest.files, MANIFEST)}
        self.isolated = isolated
        self.jobs = jobs
        self.log = log
        super().__init__((host, port), _Handler, bind_and_activate=False)
        self.socket.close()  # of IPv4 only
        self.socket = listening.bind(host, port)
        self.server_address = self.socket.getsockname()
        self.server_activate()

    @property
    def port(self) -> int:
        """The port, also if the system chose it."""
        return int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print an error of a request, unless the browser has closed the connection, as it does on a reload."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def browser_facts(artifact: Artifact) -> JsonValue:
    """Return what the manifest says about the page: {"engine", "version", "builds"}.

    Raises InputError, with the command that makes one, for an artifact without a page.
    """
    facts = artifact.manifest.conversion.get("browser")
    if artifact.is_bare or facts is None:
        path = artifact.model if artifact.is_bare else artifact.path
        raise InputError(
            f"{path} is not an artifact for the browser", "convert its source: edge convert MODEL --for browser"
        )
    return facts


def address_of(server: Server, host: str) -> str:
    """The address to open: that of this machine in its network where the server listens everywhere."""
    return f"{listening.address_of(server.socket, host)}/"


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Answer with a file of the artifact, or with a job's part."""
        name = unquote(urlsplit(self.path).path).lstrip("/") or "index.html"
        if name.startswith("job/") and self.server.jobs is not None:
            found = self.server.jobs.get(name.removeprefix("job/"))
            return self._not_found() if found is None else self._answer(found, "application/octet-stream")
        path = self.server.files.get(name)
        if path is None or not path.is_file():
            return self._not_found()
        self._head(HTTPStatus.OK, _type(name), path.stat().st_size)
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                self.wfile.write(piece)
        return None

    def do_POST(self) -> None:
        """Handle a report of the page on a job."""
        path = urlsplit(self.path).path.lstrip("/")
        length = self.headers.get("content-length", "")
        if self.server.jobs is None or not path.startswith("job/") or not length.isdecimal():
            return self._not_found()
        if int(length) > _MAX_BODY_BYTES:
            self.close_connection = True
            return self._answer(b"", "text/plain", HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        known = self.server.jobs.post(path.removeprefix("job/"), self.rfile.read(int(length)))
        return self._answer(b"", "text/plain") if known else self._not_found()

    def _not_found(self) -> None:
        self.close_connection = True
        self._answer(b"not found\n", "text/plain", HTTPStatus.NOT_FOUND)

    def _answer(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._head(status, kind, len(body))
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, kind: str, length: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-cache")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in ISOLATION if self.server.isolated else ():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Log a request, instead of printing it."""
        self.server.log(format % args)


def _type(name: str) -> str:
    return _TYPES.get(Path(name).suffix, "application/octet-stream")
