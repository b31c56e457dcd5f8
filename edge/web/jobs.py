"""A job for the page of a browser artifact, its progress reports, and its answer."""

from __future__ import annotations

import json
import queue
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runtimes.artifact.json_fields import JsonObject, JsonValue


@dataclass(frozen=True, kw_only=True)
class PageJob:
    """One job, which implements `edge.web.server.Jobs`.

    kind: "verify" or "measure".
    device, threads: Where to run; None leaves the choice to the page.
    protocol: The protocol of a measurement.
    inputs, evaluate: Files that the page may read, .npz of stacked inputs.
    """

    kind: str
    device: str | None = None
    threads: int | None = None
    protocol: Mapping[str, JsonValue] = field(default_factory=dict)
    inputs: Path | None = None
    evaluate: Path | None = None
    id: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    messages: queue.Queue[tuple[str, JsonObject]] = field(default_factory=queue.Queue)

    def get(self, path: str) -> bytes | None:
        """Return the job, or one of its files."""
        if path == self.id:
            self.messages.put(("asked", {}))
            return json.dumps(self._document()).encode()
        files = {f"{self.id}/inputs.npz": self.inputs, f"{self.id}/evaluate.npz": self.evaluate}
        file = files.get(path)
        return file.read_bytes() if file is not None else None

    def post(self, path: str, body: bytes) -> bool:
        """Handle a progress report or the answer; False for anything else."""
        place, _, part = path.rpartition("/")
        if place != self.id or part not in ("progress", "answer"):
            return False
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            return False
        if not isinstance(document, dict):
            return False
        self.messages.put((part, document))
        return True

    def _document(self) -> JsonObject:
        wanted = {"device": self.device, "threads": self.threads}
        return {
            "kind": self.kind,
            "wanted": {name: value for name, value in wanted.items() if value is not None},
            "protocol": dict(self.protocol),
            "inputs": self.inputs is not None,
            "evaluate": self.evaluate is not None,
        }
