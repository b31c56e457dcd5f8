"""The server's process: load the model, listen, report the address, and shut down cleanly."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any

from edge.serve.client_timeouts import http_protocol
from edge.serve.listening import Key, address_of, bind
from edge.serve.metrics import RequestMetrics
from edge.serve.page import LLAMA_PAGE, Page, load_page
from edge.serve.proxy import Facts, Proxy, ProxyContext
from edge.serve.security import Guard, Rules
from edge.serve.upstream import RequestSlots
from runtimes.errors import EngineMissingError, WorkerError
from runtimes.host.loopback import is_loopback

if TYPE_CHECKING:
    from edge.serve.served_model import ServedModel

_MAX_CONNECTIONS = 500  # most systems allow a process 1024 files
_KEEP_ALIVE_S = 30
_TICK_S = 1.0  # how often the date in the headers is updated
_POLL_S = 0.1  # how often signals are checked while the model is loaded
_GRACE_S = 5  # for running responses to end with an error


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """How to serve.

    name: The model's name for clients; None uses its own.
    host, port: The address to listen on; port 0 chooses a free one.
    queue: The number of requests that may wait for a slot.
    key: The API key; None if none is needed.
    origins: The origins whose pages may send requests.
    hosts: Further names of this machine, besides those of loopback.
    quiet: Whether to turn off the access log.
    page: The page at `/`: "edge", or "llama" for the one that llama-server carries.
    head_s, stalled_s: The seconds that a client has to send the headers of a request, and to go on reading a response.
    """

    name: str | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    queue: int = 32
    key: Key | None = None
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    quiet: bool = False
    page: str = "edge"
    head_s: float = 20.0
    stalled_s: float = 60.0


@dataclass(frozen=True, kw_only=True)
class Ready:
    """The report once the server answers; `notes` are remarks for the user."""

    address: str
    facts: Facts
    notes: tuple[str, ...]


def serve(opener: Callable[[], ServedModel], options: ServeOptions, on_ready: Callable[[Ready], None]) -> None:
    """Serve until a signal ends it; `opener` prepares the model, which is loaded before the server listens."""
    uvicorn = _uvicorn()
    with ExitStack() as stack:
        listening = stack.enter_context(bind(options.host, options.port))
        model = opener()
        stack.callback(model.close)
        app = _DeferredApplication()
        config = uvicorn.Config(
            app,
            http=http_protocol(options.head_s, options.stalled_s),
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=_MAX_CONNECTIONS,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )

        async def load() -> None:
            await model.engine.ready()
            facts = await model.facts(options.name)
            page = load_page() if options.page == "edge" else await _llama_page(model)
            places = RequestSlots(facts.slots, options.queue)
            meters = RequestMetrics(model.engine, places, facts.context, options.quiet)
            app.places = places
            app.inner = _application(
                ProxyContext(
                    facts=facts,
                    engine=model.engine,
                    places=places,
                    meters=meters,
                    page=page,
                    template=model.template,
                    sees_pictures=model.sees_pictures,
                ),
                options,
            )
            app.ready = Ready(address=address_of(listening, options.host), facts=facts, notes=tuple(model.notes))

        _server(uvicorn, config, model, app, load, on_ready).run([listening])


@dataclass(kw_only=True)
class _DeferredApplication:
    """A placeholder for uvicorn's application, which is created once the model is loaded."""

    inner: Guard | None = None
    places: RequestSlots | None = None
    ready: Ready | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert self.inner is not None
        await self.inner(scope, receive, send)


def _application(context: ProxyContext, options: ServeOptions) -> Guard:
    key = None if options.key is None else options.key.value
    rules = Rules(
        key=key, only_loopback=is_loopback(options.host, subdomains=True), origins=options.origins, hosts=options.hosts
    )
    return Guard(Proxy(context), rules, context.page, context.meters)


async def _llama_page(model: ServedModel) -> Page:
    """Return llama-server's own page. Raises EngineMissingError if it carries none: it is optional when compiled."""
    async with model.engine.upstream.ask("GET", "/", encoding="gzip") as answer:
        if answer.status == 200:
            return LLAMA_PAGE
    hint = "leave out --page, name one that does in EDGE_LLAMA_SERVER, or pass a folder with a page: -- --path DIR"
    raise EngineMissingError("this llama-server carries no page of its own", hint)


def _uvicorn() -> Any:
    try:
        import prometheus_client  # noqa: F401 - from the same extra; reported before the model is loaded
        import uvicorn
    except ImportError as error:
        raise EngineMissingError(f"{error.name} is not installed", "pip install 'edgeproof[serve]'") from None
    return uvicorn


def _server(
    uvicorn: Any,
    config: Any,
    model: ServedModel,
    app: _DeferredApplication,
    load: Callable[[], Coroutine[Any, Any, None]],
    on_ready: Callable[[Ready], None],
) -> Any:
    """Return a uvicorn server that loads the model before it listens, and ends running responses when it stops."""
    ending = asyncio.Event()

    class Server(uvicorn.Server):  # type: ignore[misc] # uvicorn is imported at run time
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            loading = asyncio.ensure_future(load())
            while not (await asyncio.wait({loading}, timeout=_POLL_S))[0]:
                if self.should_exit:
                    model.stop()
            try:
                loading.result()
            except WorkerError:
                if not self.should_exit:
                    raise
                return
            await super().startup(sockets=sockets)
            assert app.ready is not None
            on_ready(app.ready)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if app.places is not None:
                app.places.is_stopping = True
            model.stop()
            await super().shutdown(sockets=sockets)

        async def main_loop(self) -> None:
            """Run until a signal; uvicorn's own loop, which looks for one ten times a second, interrupts the engine."""
            while not await self.on_tick(0):
                with suppress(TimeoutError):
                    await asyncio.wait_for(ending.wait(), _TICK_S)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if self.should_exit and sig == signal.SIGINT:
                os._exit(130)  # the second Ctrl+C ends the server immediately; the engine's process ends with it
            super().handle_exit(sig, frame)
            asyncio.get_running_loop().call_soon_threadsafe(ending.set)

    return Server(config)
