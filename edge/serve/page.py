"""The chat page: plain files that are sent as they are, with a content security policy that allows only these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FOLDER = Path(__file__).with_name("chat_page")
_PREFIX = "/page/"
_TYPES = {".css": b"text/css; charset=utf-8", ".js": b"text/javascript; charset=utf-8"}
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src data:",  # the icon, and attached pictures
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


# What the page that llama-server carries consists of; no path of the API ends like this.
_ASSETS = (".html", ".js", ".css", ".json", ".webmanifest", ".svg", ".png", ".ico", ".woff2", ".wasm", ".map")


@dataclass(frozen=True)
class PageFile:
    """The body and headers of the response to the path of a file."""

    body: bytes
    headers: list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Page:
    """The page at `/`: `files` by path; without any, the requests are forwarded to llama-server, which has its own."""

    files: Mapping[str, PageFile]

    def has(self, path: str) -> bool:
        """Whether the path belongs to the page, which contains no secrets and needs no key."""
        if self.files:
            return path in self.files
        return path == "/" or (path.endswith(_ASSETS) and not path.startswith("/v1/"))


LLAMA_PAGE = Page({})


def load_page() -> Page:
    """Load the installed page."""
    document = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", _POLICY.encode()),
        (b"cache-control", b"no-cache"),
    ]
    files = {"/": PageFile((_FOLDER / "index.html").read_bytes(), document)}
    for path in sorted(_FOLDER.iterdir()):
        if path.suffix in _TYPES:
            headers = [(b"content-type", _TYPES[path.suffix]), (b"cache-control", b"no-cache")]
            files[_PREFIX + path.name] = PageFile(path.read_bytes(), headers)
    return Page(files)
