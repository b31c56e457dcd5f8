"""A scripted TextSession whose tokens are characters and known control tokens."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Event

import pytest

from runtimes.llm.session import Finish, LlmFacts, TextOptions, Token

MARKS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]"]
_MARK = re.compile("(" + "|".join(re.escape(mark) for mark in MARKS) + ")")
_FIRST_CHARACTER = 100


def _facts(**more) -> LlmFacts:
    given = {
        "name": "scripted", "architecture": "none", "quantization": "none", "parameters": None, "bytes": None,
        "vocabulary": 1 << 21, "context": 512, "trained_context": 512, "slots": 1, "bos": 0, "eos": 1, "ends": (0, 1),
        "adds_bos": True, "template": None, "threads": 1, "batch_threads": 1, "memory": None, "bos_text": "<s>",
        "eos_text": "</s>",
    }  # fmt: skip
    return LlmFacts(**{**given, **more})


class Scripted:
    """`answers` are texts, said in turn; `slow` waits that long before each token. `calls` keeps what was asked."""

    capabilities = frozenset({"tokenize", "shift"})

    def __init__(self, answers: Sequence[str] = (), *, slow: float = 0.0, on_token: Callable | None = None, **more):
        self.facts = _facts(**more)
        self.answers = list(answers)
        self.calls: list[list[int]] = []
        self.options: list[TextOptions] = []
        self._slow = slow
        self._on_token = on_token
        self._read: list[int] = []

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        parts = _MARK.split(text) if special else [text]
        tokens = [self.facts.bos] if begin and self.facts.adds_bos else []
        for part in parts:
            known = special and part in MARKS
            tokens += [MARKS.index(part)] if known else [_FIRST_CHARACTER + ord(character) for character in part]
        return tokens

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        kept = [token for token in tokens if special or token >= _FIRST_CHARACTER]
        return "".join(MARKS[t] if t < _FIRST_CHARACTER else chr(t - _FIRST_CHARACTER) for t in kept)

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event | None = None) -> Iterator[Token]:
        assert 0 < len(tokens) <= self.facts.context
        reused = _common(tokens, self._read)
        self._read = list(tokens)
        if options.max_tokens == 0:
            yield self._finish("length", tokens, reused, 0)
            return
        self.calls.append(list(tokens))
        self.options.append(options)
        answer = self.answers.pop(0) if self.answers else ""
        for index, character in enumerate(answer):
            if cancel is not None and cancel.wait(self._slow):
                yield self._finish("cancelled", tokens, reused, index)
                return
            if len(self._read) >= self.facts.context:
                self.answers.insert(0, answer[index:])  # the rest is said when it is asked to go on
                yield self._finish("context", tokens, reused, index)
                return
            token = _FIRST_CHARACTER + ord(character)
            self._read.append(token)
            yield Token(token, character)
            if self._on_token is not None:
                self._on_token()
            if options.max_tokens is not None and index + 1 == options.max_tokens:
                yield self._finish("length", tokens, reused, index + 1)
                return
        yield self._finish("stop", tokens, reused, len(answer))

    def logits(self, tokens):
        raise NotImplementedError

    def save_state(self, path):
        raise NotImplementedError

    def load_state(self, path):
        raise NotImplementedError

    def close(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _finish(self, reason, tokens, reused, made) -> Token:
        return Token(None, "", Finish(reason, len(tokens), reused, 0.01, made, 0.1, 7))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _wait_until(condition: Callable[[], bool], seconds: float = 120) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture
def scripted() -> type[Scripted]:
    return Scripted


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], bool]:
    return _wait_until
