"""The parent side of a language model: a `TextSession` whose engine runs in a child process.

    with open_session("model.gguf", LoadOptions(context=2048)) as session:
        for token in session.generate(session.tokenize("Once upon a time", begin=True), TextOptions()):
            print(token.text, end="")

The child side is `runtimes.llm.worker`. When the child ends, all pending and later calls raise one error that says why.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from threading import Event
from typing import IO

import numpy as np

from edge.workers.failures import describe_job, error_from_answer, error_from_exit
from runtimes.arrays import Array
from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue
from runtimes.child_process import end, last_words, start_text
from runtimes.errors import EdgeError, UsageError, WorkerError
from runtimes.llm.session import Finish, LlmFacts, LoadOptions, PromptPart, TextOptions, Token
from runtimes.session import Closeable

_LOOK_S = 0.03  # how often `cancel` is checked while no token arrives
_HINT = "both sides must be of the same version of edge: update the older one"
_GRACE_S = 5.0  # time for the child to end by itself


def open_session(model: str | Path, options: LoadOptions | None = None, runtime: str | None = None) -> WorkerSession:
    """Load a model file in a new process, or connect to a server if `model` is an address.

    Raises the errors of `TextRuntime.open_text`, and a crash or out-of-memory error if the process ends while loading.
    """
    session = WorkerSession(str(model))
    try:
        session.open(options or LoadOptions(), runtime)
    except BaseException:
        session.kill()
        raise
    return session


class WorkerSession(Closeable):
    """A `runtimes.llm.session.TextSession` in a child process; `runtime` and `runtime_version` name its engine."""

    runtime: str
    runtime_version: str
    capabilities: frozenset[str]
    facts: LlmFacts

    def __init__(self, model: str) -> None:
        self._model = model
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `kill`
        # -P: a file in the current folder must not shadow one of our modules.
        self._process = start_text([sys.executable, "-P", "-m", "runtimes.llm.worker"], self._log)
        self._numbers = count(1)
        self._writing = threading.Lock()
        self._waiting: dict[int, Queue[Fields | EdgeError]] = {}
        self._end: EdgeError | None = None
        self._reader = threading.Thread(target=self._read, name="text worker", daemon=True)
        self._reader.start()

    def open(self, options: LoadOptions, runtime: str | None) -> None:
        """Load the model; see `open_session`."""
        answer = self._ask("open", model=self._model, runtime=runtime, options=asdict(options)).child("answer")
        self.runtime, self.runtime_version = answer.text("runtime"), answer.text("runtime_version")
        self.capabilities = frozenset(answer.texts("capabilities"))
        self.facts = LlmFacts(**{**answer.mapping("facts"), "ends": answer.child("facts").integers("ends")})

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """See `TextSession`."""
        return list(self._ask("tokenize", text=text, special=special, begin=begin).integers("answer"))

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """See `TextSession`."""
        return self._ask("detokenize", tokens=list(tokens), special=special).text("answer")

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event | None = None) -> Iterator[Token]:
        """See `TextSession`."""
        number, events = self._send("generate", tokens=list(tokens), options=asdict(options))
        return self._tokens(number, events, cancel)

    def picture_tokens(self, picture: bytes) -> int:
        """See `TextSession`."""
        return self._ask("picture_tokens", picture=_base64(picture)).integer("answer")

    def generate_parts(
        self, parts: Sequence[PromptPart], length: int, options: TextOptions, cancel: Event | None = None
    ) -> Iterator[Token]:
        """See `TextSession`."""
        content: list[JsonValue] = [
            {
                "text": part.text,
                "is_special": part.is_special,
                **({} if part.picture is None else {"picture": _base64(part.picture)}),
            }
            for part in parts
        ]
        number, events = self._send("generate", parts=content, length=length, options=asdict(options))
        return self._tokens(number, events, cancel)

    def logits(self, tokens: Sequence[int]) -> Array:
        """See `TextSession`."""
        with tempfile.TemporaryDirectory(prefix="edge-") as folder:
            path = Path(folder) / "logits.npy"
            self._ask("logits", tokens=list(tokens), path=str(path))
            logits: Array = np.load(path, allow_pickle=False)
        return logits

    def save_state(self, path: str) -> None:
        """See `TextSession`."""
        self._ask("save_state", path=str(Path(path).resolve()))

    def load_state(self, path: str) -> list[int]:
        """See `TextSession`."""
        return list(self._ask("load_state", path=str(Path(path).resolve())).integers("answer"))

    def close(self) -> None:
        """End the process; running generations end as cancelled. A second call does nothing."""
        with suppress(OSError, ValueError):  # it has ended already
            assert self._process.stdin is not None
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE_S)
        self.kill()

    def kill(self) -> None:
        """Kill the process and its children."""
        end(self._process)
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout, self._log):
            with suppress(OSError, ValueError):
                pipe.close()  # type: ignore[union-attr] # both pipes were requested

    def _tokens(self, number: int, events: Queue[Fields | EdgeError], cancel: Event | None) -> Iterator[Token]:
        is_over = is_cancelled = False
        try:
            while not is_over:
                try:  # not a SimpleQueue: on 3.11 it waits forever after a signal whose handler outlasts the timeout
                    event = events.get(timeout=_LOOK_S if cancel is not None and not is_cancelled else None)
                except Empty:
                    event = None
                if cancel is not None and cancel.is_set() and not is_cancelled:
                    is_cancelled = True
                    self._cancel(number)
                if event is None:
                    continue
                if isinstance(event, EdgeError) or event.has("error"):
                    is_over = True
                    raise self._error(event)
                if event.has("finish"):
                    is_over = True
                    yield Token(None, event.text("text"), Finish(**event.mapping("finish")))
                elif event.has("token") and not is_cancelled:  # skip tokens generated before the cancellation arrived
                    yield Token(*event.value("token"))
        finally:
            self._waiting.pop(number, None)
            if not is_over:
                self._cancel(number)

    def _cancel(self, number: int) -> None:
        with suppress(OSError, ValueError):
            self._write({"id": 0, "do": "cancel", "what": number})

    def _ask(self, what: str, **content: JsonValue) -> Fields:
        """Send a request, wait for its answer, and return that message. Raises the error that the worker reports."""
        number, events = self._send(what, **content)
        try:
            event = events.get()
        finally:
            self._waiting.pop(number, None)
        if isinstance(event, EdgeError) or event.has("error"):
            raise self._error(event)
        return event

    def _send(self, what: str, **content: JsonValue) -> tuple[int, Queue[Fields | EdgeError]]:
        number, events = next(self._numbers), Queue[Fields | EdgeError]()
        self._waiting[number] = events
        if self._end is not None:
            events.put(self._end)
        with suppress(OSError, ValueError):  # the reader reports a process that has ended
            self._write({"id": number, "do": what, **content})
        return number, events

    def _write(self, message: JsonObject) -> None:
        assert self._process.stdin is not None
        with self._writing:
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _read(self) -> None:
        """Pass each answer to its request; at the end of the process, pass the reason to all open requests."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):
                answer = Fields(json.loads(line), "the worker's answer", hint=_HINT, error=WorkerError)
                events = self._waiting.get(answer.integer("id"))
                if events is not None:
                    events.put(answer)
        self._end = self._end_error()
        for events in list(self._waiting.values()):
            events.put(self._end)

    def _end_error(self) -> EdgeError:
        status = self._process.wait()
        if status == 0:
            return UsageError("the session is closed", "open the model again")
        return error_from_exit(status, describe_job("running", self._model), last_words(self._log))

    def _error(self, event: Fields | EdgeError) -> EdgeError:
        if isinstance(event, EdgeError):
            return event
        return error_from_answer(
            {**event.mapping("error"), "kind": event.text("kind")}, describe_job("running", self._model)
        )


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
