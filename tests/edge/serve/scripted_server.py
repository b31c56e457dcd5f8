"""The real server around a session that says what it is told to: `python scripted_server.py JSON`, options as JSON.

The last question says what happens:

    say TEXT       the answer is TEXT, word by word
    count N        the numbers to N
    read S         S seconds of reading the prompt
    die            the engine's process crashes after one word
    pause S        as `count 1000`, S seconds a word
Everything else is answered with itself.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from threading import Event, Lock

from edge.serve.access import Key
from edge.serve.server import ServeOptions, serve
from edge.workers import Crashed
from runtimes.errors import HostError, InputError
from runtimes.text import Finish, ModelFacts, TextOptions, Token

FACTS = {
    "name": "scripted", "architecture": "script", "quantization": "Q4_0", "parameters": 1, "bytes": 1,
    "vocabulary": 1 << 20, "context": 4096, "trained_context": 4096, "slots": 2, "bos": None, "eos": None, "ends": (),
    "adds_bos": False, "template": None, "threads": 1, "batch_threads": 1, "memory": None,
}  # fmt: skip
_WORD = re.compile(r"<\|im_(?:start|end)\|>|\s*[^\s<]+|\s*<|\s+")


class Session:
    """Tokens are words, numbered as they come."""

    capabilities = frozenset({"tokenize"})
    opened = 0

    def __init__(self, **facts) -> None:
        type(self).opened += 1
        self.facts = ModelFacts(**{**FACTS, **facts})
        self._words: dict[str, int] = {}
        self._lock = Lock()
        self._dead = False

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        self._check()
        with self._lock:
            return [self._words.setdefault(word, len(self._words)) for word in _WORD.findall(text)]

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        names = list(self._words)
        return "".join(names[token] for token in tokens)

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event) -> Iterator[Token]:
        self._check()
        began = time.monotonic()
        if options.grammar is not None and "root" not in options.grammar:
            raise InputError("the grammar has no root", "write one")
        reason, made = "stop", 0
        for made, word in enumerate(self._answer(self.detokenize(tokens), cancel), 1):
            yield Token(0, word)
            if made == options.max_tokens or len(tokens) + made >= self.facts.context:
                reason = "length"
                break
            if cancel.is_set():
                reason = "cancelled"
                break
        if cancel.is_set():
            reason = "cancelled"
        seconds = time.monotonic() - began
        yield Token(None, "", Finish(reason, len(tokens), len(tokens) // 2, 0.01, made, seconds, 7))

    def _answer(self, prompt: str, cancel: Event) -> Iterator[str]:
        question = prompt.rpartition("user\n")[2].partition("<|im_end|>")[0] or prompt
        verb, _, rest = question.strip().partition(" ")
        if verb == "say":
            for word in re.findall(r"\s*\S+", rest):
                cancel.wait(0.002)
                yield word
        elif verb in ("count", "pause"):
            last, pause = (int(rest), 0.0) if verb == "count" else (1000, float(rest))
            for number in range(1, last + 1):
                cancel.wait(pause)
                yield f"{number} "
        elif verb == "read":
            cancel.wait(float(rest))
            yield "done"
        elif verb == "die":
            yield "last "
            self._dead = True
            self._check()
        else:
            yield question

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self._dead:
            raise Crashed("'generate' of the model crashed with SIGSEGV")


def main(given: dict) -> None:
    facts = given.pop("facts", {})
    fails_again = given.pop("fails_again", False)
    if given.get("key"):
        given["key"] = Key(given["key"], is_new=False)
    given["origins"] = tuple(given.get("origins", ()))

    def opener() -> Session:
        if fails_again and Session.opened:
            raise HostError("there is too little memory", "close other programs")
        return Session(**facts)

    options = ServeOptions(**{"name": "scripted", "port": 0, "template": "chatml", **given})
    serve(
        opener, options, lambda ready: print(json.dumps({"address": ready.address, "notes": ready.notes}), flush=True)
    )


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
