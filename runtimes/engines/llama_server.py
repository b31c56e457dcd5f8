"""llama.cpp's own server, reached over HTTP: a phone (Termux' llama-server), a board, another computer."""

from __future__ import annotations

import os
from dataclasses import fields
from typing import Mapping

from runtimes.errors import UsageError
from runtimes.llm.llama_cpp.http_session import ServerSession
from runtimes.llm.session import LoadOptions, TextEngine
from runtimes.session import check_settings

KEY = "EDGE_API_KEY"


class Adapter(TextEngine):
    """Needs no local library. The server decides how the model is loaded."""

    id = "llama_server"
    formats: tuple[str, ...] = ("llama-server",)
    settings: Mapping[str, str] = {"key": f"environment variable that holds the server's API key ({KEY})"}

    def version(self) -> str:
        """Return the llama.cpp release whose HTTP API the adapter targets; the API has no version number."""
        return "1"

    def open_text(self, model: str, options: LoadOptions) -> ServerSession:
        """Connect to the server at `http://host:port`; see `runtimes.llm.session.TextEngine`."""
        check_settings(options.settings, self.settings, self.id)
        _check_options(options)
        return ServerSession(model, os.environ.get(options.settings.get("key", KEY)))


def _check_options(options: LoadOptions) -> None:
    """Raise UsageError for options that can only be set when the server is started."""
    names = [
        one.name for one in fields(options) if one.name != "settings" and getattr(options, one.name) != one.default
    ]
    names = [name for name in names if getattr(options, name) and name not in ("context", "slots", "threads")]
    if names:
        raise UsageError(f"{names[0]} cannot be set on a running server", "pass it to llama-server when you start it")
