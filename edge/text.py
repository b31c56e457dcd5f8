"""The parent side of a language model: a `TextSession` whose engine lives in a process of its own.

    with open_session("model.gguf", LoadOptions(context=2048)) as session:
        for token in session.generate(session.tokenize("Once upon a time", begin=True), TextOptions()):
            print(token.text, end="")

The child side is `runtimes.text_worker`. When the child ends, whatever waits for it gets one error that says why, and
so does everything asked later.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import IO, Any

import numpy as np

from edge.workers import answered, death
from runtimes.arrays import Array
from runtimes.errors import EdgeError, UsageError
from runtimes.text import Finish, LoadOptions, ModelFacts, TextOptions, Token

_LOOK_S = 0.03  # how soon a set `cancel` is noticed while no token comes
_GRACE_S = 5.0  # what the child gets to end by itself
_TAIL_BYTES = 8192


def open_session(model: str | Path, options: LoadOptions | None = None, runtime: str | None = None) -> WorkerSession:
    """Load a model file, or reach the server whose address `model` is, in a fresh process.

    Raises what `TextRuntime.open_text` raises; Crashed or OutOfMemory where the process ends meanwhile.
    """
    session = WorkerSession(str(model))
    try:
        session.open(options or LoadOptions(), runtime)
    except BaseException:
        session.kill()
        raise
    return session


class WorkerSession:
    """See `runtimes.text.TextSession`; `runtime` and `runtime_version` say what runs the model."""

    runtime: str
    runtime_version: str
    capabilities: frozenset[str]
    facts: ModelFacts

    def __init__(self, model: str) -> None:
        self._model = model
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        self._process = subprocess.Popen(
            # -P: nothing in the current folder may pass for one of our modules.
            [sys.executable, "-P", "-m", "runtimes.text_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,  # Ctrl+C is ours to handle
        )
        self._numbers = count(1)
        self._writing = threading.Lock()
        self._waiting: dict[int, Queue[Mapping[str, Any] | EdgeError]] = {}
        self._end: EdgeError | None = None
        self._reader = threading.Thread(target=self._read, name="text worker", daemon=True)
        self._reader.start()

    def open(self, options: LoadOptions, runtime: str | None) -> None:
        """Load the model; see `open_session`."""
        found = self._ask("open", model=self._model, runtime=runtime, options=asdict(options))
        self.runtime, self.runtime_version = found["runtime"], found["runtime_version"]
        self.capabilities = frozenset(found["capabilities"])
        self.facts = ModelFacts(**{**found["facts"], "ends": tuple(found["facts"]["ends"])})

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """See `TextSession`."""
        return list(self._ask("tokenize", text=text, special=special, begin=begin))

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """See `TextSession`."""
        return str(self._ask("detokenize", tokens=list(tokens), special=special))

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event | None = None) -> Iterator[Token]:
        """See `TextSession`."""
        number, events = self._send("generate", tokens=list(tokens), options=asdict(options))
        return self._tokens(number, events, cancel)

    def logits(self, tokens: Sequence[int]) -> Array:
        """See `TextSession`."""
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            path = Path(folder) / "logits.npy"
            self._ask("logits", tokens=list(tokens), path=str(path))
            found: Array = np.load(path, allow_pickle=False)
        return found

    def save_state(self, path: str) -> None:
        """See `TextSession`."""
        self._ask("save_state", path=str(Path(path).resolve()))

    def load_state(self, path: str) -> list[int]:
        """See `TextSession`."""
        return list(self._ask("load_state", path=str(Path(path).resolve())))

    def close(self) -> None:
        """End the process; continuations under way end as cancelled. A second call does nothing."""
        with suppress(OSError, ValueError):  # it is gone already
            assert self._process.stdin is not None
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """End the process at once, with all that it started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr] # both pipes were asked for

    def __enter__(self) -> WorkerSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _tokens(
        self, number: int, events: Queue[Mapping[str, Any] | EdgeError], cancel: Event | None
    ) -> Iterator[Token]:
        is_over = is_cancelled = False
        try:
            while not is_over:
                try:  # no SimpleQueue: on 3.11 it waits for ever after a signal whose handler outlasts the timeout
                    event = events.get(timeout=_LOOK_S if cancel is not None and not is_cancelled else None)
                except Empty:
                    event = {}
                if cancel is not None and cancel.is_set() and not is_cancelled:
                    is_cancelled = True
                    self._cancel(number)
                if isinstance(event, EdgeError) or "error" in event:
                    is_over = True
                    raise self._told(event)
                if "finish" in event:
                    is_over = True
                    yield Token(None, event["text"], Finish(**event["finish"]))
                elif "token" in event and not is_cancelled:  # what was made ahead of us is left out
                    yield Token(*event["token"])
        finally:
            self._waiting.pop(number, None)
            if not is_over:
                self._cancel(number)

    def _cancel(self, number: int) -> None:
        with suppress(OSError, ValueError):
            self._write({"id": 0, "do": "cancel", "what": number})

    def _ask(self, what: str, **content: Any) -> Any:
        number, events = self._send(what, **content)
        try:
            event = events.get()
        finally:
            self._waiting.pop(number, None)
        if isinstance(event, EdgeError) or "error" in event:
            raise self._told(event)
        return event["answer"]

    def _send(self, what: str, **content: Any) -> tuple[int, Queue[Mapping[str, Any] | EdgeError]]:
        number, events = next(self._numbers), Queue[Mapping[str, Any] | EdgeError]()
        self._waiting[number] = events
        if self._end is not None:
            events.put(self._end)
        with suppress(OSError, ValueError):  # a process that is gone says so through the reader
            self._write({"id": number, "do": what, **content})
        return number, events

    def _write(self, message: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        with self._writing:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        """Hand each answer to whoever waits for it, and the reason of the end to all who still do."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                answer = json.loads(line)
                events = self._waiting.get(answer["id"])
                if events is not None:
                    events.put(answer)
        self._end = self._reason()
        for events in list(self._waiting.values()):
            events.put(self._end)

    def _reason(self) -> EdgeError:
        status = self._process.wait()
        if status == 0:
            return UsageError("the session is closed", "open the model again")
        return death(status, {"job": "running", "artifact": self._model}, self._last_words())

    def _told(self, event: Mapping[str, Any] | EdgeError) -> EdgeError:
        if isinstance(event, EdgeError):
            return event
        return answered({**event["error"], "kind": event["kind"]}, {"job": "running", "artifact": self._model})

    def _last_words(self) -> str:
        size = self._log.seek(0, os.SEEK_END)
        self._log.seek(max(0, size - _TAIL_BYTES))
        return self._log.read().decode("utf-8", "replace").strip()
