"""The child side of a language model: `python -m runtimes.llm.worker` loads one model and serves many requests.

If the engine crashes, or llama.cpp aborts because an RPC worker is lost, only this process ends. The parent side is
`edge.llm.session`.

    stdin   one JSON object per line: {"id": 7, "do": "generate", ...}; the process exits when it closes
    stdout  one JSON object per line, with the id of its request: any number of {"token": [id, text]}, then
            {"finish": {...}, "text"} for generate, {"answer": ...} for all other requests, or
            {"error": EdgeError.as_dict(), "kind": class name}
    stderr  the engine's log

"open" comes first, with "model", "runtime" and "options" (`LoadOptions` by name). "cancel" has the id of a continuation
as "what", and no answer.
"""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import asdict
from typing import Callable, Iterator, TextIO

import numpy as np

from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue
from runtimes.errors import EdgeError, UsageError, WorkerError, first_line
from runtimes.job_server import private_pipes
from runtimes.llm.session import LoadOptions, PromptPart, TextOptions, TextSession, Token
from runtimes.registry import text_engine

_HINT = "both sides must be of the same version of edge: update the older one"


class _Server:
    def __init__(self, jobs: TextIO, answers: TextIO) -> None:
        self._jobs = jobs
        self._answers = answers
        self._writing = threading.Lock()
        self._session: TextSession | None = None
        self._cancels: dict[int, threading.Event] = {}
        self._doing: dict[str, Callable[[Fields], JsonValue]] = {
            "open": self._open,
            "tokenize": lambda m: self._model.tokenize(
                m.text("text"), special=m.flag("special"), begin=m.flag("begin")
            ),
            "detokenize": lambda m: self._model.detokenize(list(m.integers("tokens")), special=m.flag("special")),
            "picture_tokens": lambda m: self._model.picture_tokens(base64.b64decode(m.text("picture"))),
            "logits": self._logits,
            "save_state": self._save_state,
            "load_state": lambda m: self._model.load_state(m.text("path")),
        }

    def serve(self) -> None:
        """Handle the messages in order; generations run in separate threads."""
        for line in self._jobs:
            message = Fields(json.loads(line), "the parent's message", hint=_HINT, error=WorkerError)
            if message.text("do") == "cancel":
                self._cancel(message.integer("what"))
            elif message.text("do") == "generate":
                self._cancels[message.integer("id")] = threading.Event()  # before a cancel can follow
                threading.Thread(target=self._answer, args=(message, self._generate), daemon=True).start()
            else:
                self._answer(message, self._simple)
        for cancel in list(self._cancels.values()):
            cancel.set()
        if self._session is not None:
            self._session.close()

    @property
    def _model(self) -> TextSession:
        if self._session is None:
            raise UsageError("no model is open", "open one first")
        return self._session

    def _answer(self, message: Fields, work: Callable[[Fields], None]) -> None:
        try:
            work(message)
        except EdgeError as error:
            self._send(message, error=error.as_dict(), kind=type(error).__name__)
        except MemoryError:
            self._send(message, error=WorkerError("ran out of memory").as_dict(), kind="MemoryError")
        except Exception as error:  # an engine's error that no adapter maps, or a bug in edge
            unexpected = WorkerError(
                f"failed with {type(error).__name__}: {first_line(error)}", "run again with --debug for the traceback"
            )
            self._send(message, error=unexpected.as_dict(), kind=type(error).__name__)

    def _simple(self, message: Fields) -> None:
        self._send(message, answer=self._doing[message.text("do")](message))

    def _open(self, message: Fields) -> JsonObject:
        model = message.text("model")
        engine = text_engine(model, message.optional_text("runtime"))
        values = message.mapping("options")
        options = LoadOptions(**{**values, "workers": tuple(values.get("workers", ()))})
        self._session = engine.open_text(model, options)
        return {
            "runtime": engine.id,
            "runtime_version": engine.version(),
            "capabilities": sorted(self._session.capabilities),
            "facts": asdict(self._session.facts),
        }

    def _generate(self, message: Fields) -> None:
        number = message.integer("id")
        try:
            for token in self._continue(message, self._cancels[number]):
                if token.finish is None:
                    self._send(message, token=[token.id, token.text])
                else:
                    self._send(message, finish=asdict(token.finish), text=token.text)
        finally:
            self._cancels.pop(number, None)

    def _continue(self, message: Fields, cancel: threading.Event) -> Iterator[Token]:
        options = TextOptions(**message.mapping("options"))
        if not message.has("parts"):
            return self._model.generate(list(message.integers("tokens")), options, cancel)
        parts = [
            PromptPart(
                text=part.text("text"),
                is_special=part.flag("is_special"),
                picture=base64.b64decode(part.text("picture")) if part.has("picture") else None,
            )
            for part in message.children("parts")
        ]
        return self._model.generate_parts(parts, message.integer("length"), options, cancel)

    def _save_state(self, message: Fields) -> None:
        self._model.save_state(message.text("path"))

    def _logits(self, message: Fields) -> None:
        """Write the scores to a file, because as JSON they would be a line of hundreds of megabytes."""
        np.save(message.text("path"), self._model.logits(list(message.integers("tokens"))), allow_pickle=False)

    def _cancel(self, number: int) -> None:
        cancel = self._cancels.get(number)
        if cancel is not None:
            cancel.set()

    def _send(self, message: Fields, **content: JsonValue) -> None:
        line = json.dumps({"id": message.integer("id"), **content}) + "\n"
        with self._writing:
            self._answers.write(line)
            self._answers.flush()


if __name__ == "__main__":
    _Server(*private_pipes()).serve()
