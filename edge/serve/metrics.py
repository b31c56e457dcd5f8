"""Counters for Prometheus at `/metrics`, and the access log, one line per request."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from edge.console.text import printable
from edge.serve.http import Record
from edge.serve.requests import GENERATING, RENDERING

if TYPE_CHECKING:
    from edge.serve.upstream import ModelServer, RequestSlots

_LOG = logging.getLogger(__name__)
# Only these paths become labels: clients must not be able to create new ones.
_PATHS = ("/", "/health", "/metrics", "/v1/models", *GENERATING, *RENDERING, "/tokenize", "/detokenize", "/props")


class RequestMetrics:
    """Counters in their own registry, and the access log, which `quiet` turns off."""

    def __init__(self, engine: ModelServer, places: RequestSlots, context: int, quiet: bool = False) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, disable_created_metrics

        disable_created_metrics()  # type: ignore[no-untyped-call] # the library does not annotate it
        self._quiet = quiet
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("edge_requests", "Requests answered", ["path", "status"], registry=registry)
        self._rejected = Counter(
            "edge_requests_rejected", "Requests rejected because the queue was full", registry=registry
        )
        self._cancelled = Counter("edge_requests_cancelled", "Requests whose client disconnected", registry=registry)
        self._read = Counter("edge_prompt_tokens", "Prompt tokens, including reused ones", registry=registry)
        self._reused = Counter("edge_prompt_tokens_reused", "Prompt tokens reused from the cache", registry=registry)
        self._written = Counter("edge_generated_tokens", "Tokens generated", registry=registry)
        self._read_s = Counter("edge_prompt_seconds", "Seconds spent on processing prompts", registry=registry)
        self._written_s = Counter("edge_generate_seconds", "Seconds spent on generating", registry=registry)
        self._speed = Gauge("edge_tokens_per_second", "Generation speed of the last answer", registry=registry)
        for name, about, value in (
            ("edge_slots", "Responses that can be generated at the same time", lambda: places.slots),
            ("edge_slots_busy", "Responses being generated", lambda: places.busy),
            ("edge_queue_length", "Requests waiting for a slot", lambda: places.waiting),
            ("edge_context_tokens", "Tokens that a slot can hold", lambda: context),
            ("edge_engine_restarts", "Restarts of the engine's process", lambda: engine.restarts),
            ("edge_engine_up", "1 while a model is loaded", lambda: int(engine.is_ready)),
        ):
            Gauge(name, about, registry=registry).set_function(value)

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        from prometheus_client import generate_latest

        return generate_latest(self._registry)

    def count_request(self, method: str, path: str, status: int | None, seconds: float, record: Record) -> None:
        """Count a request and log it; `status` is None if the client disconnected before the response began."""
        if record.has_left:
            self._cancelled.inc()
        if status == 429:
            self._rejected.inc()
        self._requests.labels(path if path in _PATHS else "other", str(status or "left")).inc()
        if record.is_counted:
            self._count(record)
        if not self._quiet:
            _LOG.info("%s", _line(method, path, status, seconds, record))

    def _count(self, record: Record) -> None:
        self._read.inc(record.read + record.reused)
        self._reused.inc(record.reused)
        self._written.inc(record.written)
        self._read_s.inc(record.read_ms / 1e3)
        self._written_s.inc(record.written_ms / 1e3)
        self._speed.set(record.per_second)


def _line(method: str, path: str, status: int | None, seconds: float, record: Record) -> str:
    words = [time.strftime("%H:%M:%S"), printable(method)[:10], printable(path)[:100], str(status or "-")]
    words.append(f"{seconds:.2f} s")
    if record.has_left:
        words.append("the client disconnected")
    elif record.is_counted:
        words.append(
            f"{record.read + record.reused} prompt ({record.reused} reused) + {record.written} tokens, "
            f"{record.per_second:.1f} tok/s"
        )
    return "  ".join(words)
