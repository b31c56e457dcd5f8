"""The server's process: load the model, listen, say where, and end well."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from edge.serve.access import Key, address_of, bind
from edge.serve.endpoints import Endpoints, House, now
from edge.serve.engine import Engine
from edge.serve.guard import Guard, Rules, is_loopback
from edge.serve.meters import Meters
from edge.serve.page import load_page
from edge.serve.patience import patient
from runtimes.errors import EdgeError, EngineMissing, UsageError
from runtimes.text import ModelFacts, TextSession

if TYPE_CHECKING:
    from edge.chat.templates import ChatTemplate

_MOST_CONNECTIONS = 500  # most systems allow a process 1024 files
_MOST_HEAD_BYTES = 32 << 10
_KEEP_ALIVE_S = 30
_GRACE_S = 5  # for answers to be told that the server is stopping


@dataclass(frozen=True)
class ServeOptions:
    """How to serve. `queue` requests wait for a slot at most; `template` names one that the model's file lacks.

    `name` is what clients call the model; None: as it calls itself.
    """

    name: str | None
    host: str = "127.0.0.1"
    port: int = 8080
    queue: int = 32
    key: Key | None = None
    origins: tuple[str, ...] = ()
    template: str | None = None
    quiet: bool = False
    head_s: float = 20.0  # for the head of a request to be there


@dataclass(frozen=True)
class Ready:
    """What is told when the server answers: `notes` are what a person should know beside the address."""

    address: str
    name: str
    facts: ModelFacts
    notes: tuple[str, ...]


def serve(opener: Callable[[], TextSession], options: ServeOptions, on_ready: Callable[[Ready], None]) -> None:
    """Serve until a signal ends it; `opener` loads the model, and again whenever its process has died."""
    uvicorn = _uvicorn()
    with ExitStack() as stack:
        listening = stack.enter_context(bind(options.host, options.port))
        engine = Engine(opener(), opener, options.queue)
        stack.callback(engine.close)
        template, hint = _template(engine.facts, options.template)
        if template is not None:
            stack.enter_context(template)
        meters = Meters(engine, options.quiet)
        name = options.name or engine.facts.name
        house = House(name, engine, meters, load_page(), template, hint, now())
        rules = Rules(None if options.key is None else options.key.value, is_loopback(options.host), options.origins)
        config = uvicorn.Config(
            Guard(Endpoints(house), rules, meters),
            http=patient(options.head_s),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MOST_CONNECTIONS,
            h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
        ready = Ready(address_of(listening, options.host), name, engine.facts, (hint,) if hint else ())
        _server(uvicorn, config, engine, lambda: on_ready(ready)).run([listening])


def _uvicorn() -> Any:
    try:
        import prometheus_client  # noqa: F401 - both belong to the extra; better said before the model is loaded
        import uvicorn
    except ImportError as error:
        raise EngineMissing(f"{error.name} is not installed", "pip install 'edgeproof[serve]'") from None
    return uvicorn


def _template(facts: ModelFacts, asked: str | None) -> tuple[ChatTemplate | None, str]:
    """The chat template, tried once, or what is wrong with it: without one the model still completes texts."""
    from edge.chat.templates import choose_template

    try:
        template = choose_template(facts, asked)
    except UsageError as error:
        if asked is not None:
            raise
        return None, f"{error.message}; {error.hint}"
    try:
        template.render([{"role": "user", "content": "Hello"}])
    except EdgeError as error:
        template.close()
        return None, f"{error.message}; {error.hint}"
    return template, ""


def _server(uvicorn: Any, config: Any, engine: Engine, on_start: Callable[[], None]) -> Any:
    """uvicorn's server, which also says when it listens, and ends the answers under way when it is to stop."""

    class Server(uvicorn.Server):  # type: ignore[misc] # uvicorn is imported where it is needed
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets=sockets)
            on_start()

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            engine.stop()
            await super().shutdown(sockets=sockets)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit and sig == signal.SIGINT:
                os._exit(130)  # asked twice: at once. The engine's process ends with our pipes
            super().handle_exit(sig, frame)

    return Server(config)
