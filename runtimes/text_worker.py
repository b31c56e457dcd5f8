"""The child side of a language model: `python -m runtimes.text_worker` holds one model and answers many at a time.

A model that crashes its engine, or a lost RPC worker over which llama.cpp ends the process, ends this process and not
the command. The parent side is `edge.text`.

    stdin   one JSON object a line: {"id": 7, "do": "generate", ...}; its end ends the process
    stdout  one JSON object a line, each with the id of what it answers: any number of {"token": [id, text]}, then
            {"finish": {...}, "text"} for generate, {"answer": ...} for everything else, or
            {"error": EdgeError.as_dict(), "kind": class name}
    stderr  what the engine logs

"open" comes first, with "model", "runtime" and "options" (`LoadOptions` by name); "cancel" takes the id of a
continuation as "what" and is not answered itself.
"""

from __future__ import annotations

import json
import threading
from dataclasses import asdict
from typing import Any, Callable, Mapping, TextIO

import numpy as np

from runtimes.errors import EdgeError, UsageError, WorkerError, first_line
from runtimes.registry import text_runtime
from runtimes.text import LoadOptions, TextOptions, TextSession
from runtimes.worker import private_pipes

Message = Mapping[str, Any]


class _Server:
    def __init__(self, jobs: TextIO, answers: TextIO) -> None:
        self._jobs = jobs
        self._answers = answers
        self._writing = threading.Lock()
        self._session: TextSession | None = None
        self._cancels: dict[int, threading.Event] = {}
        self._doing: dict[str, Callable[[Message], Any]] = {
            "open": self._open,
            "tokenize": lambda m: self._model.tokenize(m["text"], special=m["special"], begin=m["begin"]),
            "detokenize": lambda m: self._model.detokenize(m["tokens"], special=m["special"]),
            "logits": self._logits,
            "save_state": lambda m: self._model.save_state(m["path"]),
            "load_state": lambda m: self._model.load_state(m["path"]),
        }

    def serve(self) -> None:
        """Take up each message as it comes; what takes long does so in a thread of its own."""
        for line in self._jobs:
            message = json.loads(line)
            if message["do"] == "cancel":
                self._cancel(message["what"])
            elif message["do"] == "generate":
                self._cancels[message["id"]] = threading.Event()  # before a cancel can follow
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

    def _answer(self, message: Message, work: Callable[[Message], None]) -> None:
        try:
            work(message)
        except EdgeError as error:
            self._send(message, error=error.as_dict(), kind=type(error).__name__)
        except MemoryError:
            self._send(message, error=WorkerError("ran out of memory").as_dict(), kind="MemoryError")
        except Exception as error:  # an engine's error that no adapter mapped, or a mistake of ours: told, not hidden
            unexpected = WorkerError(f"failed with {type(error).__name__}: {first_line(error)}", "see it with --debug")
            self._send(message, error=unexpected.as_dict(), kind=type(error).__name__)

    def _simple(self, message: Message) -> None:
        self._send(message, answer=self._doing[message["do"]](message))

    def _open(self, message: Message) -> dict[str, Any]:
        engine = text_runtime(message.get("runtime"))
        given = dict(message["options"])
        options = LoadOptions(**{**given, "workers": tuple(given.get("workers", ()))})
        self._session = engine.open_text(message["model"], options)
        return {
            "runtime": engine.id,
            "runtime_version": engine.version(),
            "capabilities": sorted(self._session.capabilities),
            "facts": asdict(self._session.facts),
        }

    def _generate(self, message: Message) -> None:
        number = message["id"]
        try:
            options = TextOptions(**message["options"])
            for token in self._model.generate(message["tokens"], options, self._cancels[number]):
                if token.finish is None:
                    self._send(message, token=[token.id, token.text])
                else:
                    self._send(message, finish=asdict(token.finish), text=token.text)
        finally:
            self._cancels.pop(number, None)

    def _logits(self, message: Message) -> None:
        """Into a file: scores of a context would be a line of hundreds of megabytes."""
        np.save(message["path"], self._model.logits(message["tokens"]), allow_pickle=False)

    def _cancel(self, number: int) -> None:
        cancel = self._cancels.get(number)
        if cancel is not None:
            cancel.set()

    def _send(self, message: Message, **content: Any) -> None:
        line = json.dumps({"id": message["id"], **content}) + "\n"
        with self._writing:
            self._answers.write(line)
            self._answers.flush()


if __name__ == "__main__":
    _Server(*private_pipes()).serve()
