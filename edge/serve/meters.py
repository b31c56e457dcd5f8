"""What the server counts: for Prometheus at `/metrics`, and one line a request on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from edge.serve.exchange import Record
from edge.serve.shapes import per_second
from edge.terminal import printable
from runtimes.text import Finish

if TYPE_CHECKING:
    from edge.serve.engine import Engine

# Only these words become labels: a client must not be able to make new ones.
_PATHS = ("/", "/health", "/metrics", "/v1/models", "/v1/chat/completions", "/v1/completions")


class Meters:
    """Counters in a registry of their own, and the access log; `quiet` leaves the log out."""

    def __init__(self, engine: Engine, quiet: bool = False) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call] # its authors forgot the arrow
        self._quiet = quiet
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("edge_requests", "Requests answered", ["path", "status"], registry=registry)
        self._rejected = Counter("edge_requests_rejected", "Requests refused: the queue is full", registry=registry)
        self._cancelled = Counter("edge_requests_cancelled", "Requests whose client left", registry=registry)
        self._read = Counter("edge_prompt_tokens", "Tokens of prompts, reused ones included", registry=registry)
        self._reused = Counter("edge_prompt_tokens_reused", "Tokens of prompts not read again", registry=registry)
        self._written = Counter("edge_generated_tokens", "Tokens generated", registry=registry)
        self._read_s = Counter("edge_prompt_seconds", "Seconds spent on reading prompts", registry=registry)
        self._written_s = Counter("edge_generate_seconds", "Seconds spent on generating", registry=registry)
        self._speed = Gauge("edge_tokens_per_second", "Generation speed of the last answer", registry=registry)
        for name, about, value in (
            ("edge_slots", "Answers that can be under way at once", lambda: engine.slots),
            ("edge_slots_busy", "Answers under way", lambda: engine.busy),
            ("edge_queue_length", "Requests waiting for a slot", lambda: engine.waiting),
            ("edge_context_tokens", "Tokens that a slot can hold", lambda: engine.facts.context),
            ("edge_engine_restarts", "Times that the engine's process has died", lambda: engine.restarts),
            ("edge_engine_up", "1 while a model is loaded", lambda: int(engine.is_well)),
        ):
            Gauge(name, about, registry=registry).set_function(value)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def answered(self, method: str, path: str, status: int | None, seconds: float, record: Record) -> None:
        """Count one request and write its line; `status` None: the client left before there was one."""
        if record.has_left:
            self._cancelled.inc()
        if status == 429:
            self._rejected.inc()
        self._requests.labels(path if path in _PATHS else "other", str(status or "left")).inc()
        if record.finish is not None:
            self._count(record.finish)
        if not self._quiet:
            print(_line(method, path, status, seconds, record), file=sys.stderr, flush=True)

    def _count(self, finish: Finish) -> None:
        self._read.inc(finish.prompt_tokens)
        self._reused.inc(finish.reused_tokens)
        self._written.inc(finish.tokens)
        self._read_s.inc(finish.prompt_s)
        self._written_s.inc(finish.generate_s)
        self._speed.set(per_second(finish))


def _line(method: str, path: str, status: int | None, seconds: float, record: Record) -> str:
    words = [time.strftime("%H:%M:%S"), printable(method)[:10], printable(path)[:100], str(status or "-")]
    words.append(f"{seconds:.2f} s")
    finish = record.finish
    if record.has_left:
        words.append("the client left")
    elif finish is not None:
        words.append(
            f"{finish.prompt_tokens} prompt ({finish.reused_tokens} reused) + {finish.tokens} tokens, "
            f"{per_second(finish):.1f} tok/s"
        )
    return "  ".join(words)
