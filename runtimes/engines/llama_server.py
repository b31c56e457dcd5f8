"""llama.cpp's own server, reached over HTTP: a phone (Termux' llama-server), a board, another computer."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Mapping

from runtimes.errors import UsageError
from runtimes.llama.server_client import ServerSession
from runtimes.session import check_settings
from runtimes.text import LoadOptions

KEY = "EDGE_API_KEY"


class Adapter:
    """Needs nothing installed here; how the model is loaded is the server's business."""

    id = "llama_server"
    formats: tuple[str, ...] = ("llama-server",)
    requires = ""
    settings: Mapping[str, str] = {"key": f"environment variable that holds the server's API key ({KEY})"}

    def version(self) -> str:
        """Of the HTTP endpoints that it is written against, which have no number of their own."""
        return "1"

    def open_text(self, model: str, options: LoadOptions) -> ServerSession:
        """Reach the server at `http://host:port`; see `runtimes.text.TextRuntime`."""
        check_settings(options.settings, self.settings, self.id)
        _check_options(options)
        return ServerSession(model, os.environ.get(options.settings.get("key", KEY)))


def _check_options(options: LoadOptions) -> None:
    """UsageError for what only the server itself can be told when it is started."""
    asked = [
        one.name for one in fields(options) if one.name != "settings" and getattr(options, one.name) != one.default
    ]
    asked = [name for name in asked if getattr(options, name) and name not in ("context", "slots", "threads")]
    if asked:
        raise UsageError(f"a server is not told its {asked[0]} by those who use it", "give it to llama-server there")
