"""The chat page: one file, with a content security policy that only allows its own script and style."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

_FILE = Path(__file__).with_name("page.html")
_BLOCK = "<{0}>(.*?)</{0}>"


@dataclass(frozen=True)
class Page:
    """The body and headers of the response to `/`."""

    body: bytes
    headers: list[tuple[bytes, bytes]]


def load_page() -> Page:
    """Load the installed page."""
    text = _FILE.read_text(encoding="utf-8")
    policy = "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hashes(text, 'script')}",
            f"style-src {_hashes(text, 'style')}",
            "connect-src 'self'",
            "img-src data:",  # the icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    )
    headers = [
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"cache-control", b"no-cache"),
    ]
    return Page(text.encode(), headers)


def _hashes(text: str, element: str) -> str:
    blocks = re.findall(_BLOCK.format(element), text, re.DOTALL)
    digests = (base64.b64encode(hashlib.sha256(block.encode()).digest()).decode() for block in blocks)
    return " ".join(f"'sha256-{digest}'" for digest in digests)
