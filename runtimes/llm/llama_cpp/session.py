"""A language model loaded through llama.cpp: the TextSession, which continues one text at a time."""

from __future__ import annotations

import codecs
import ctypes
import os
import tempfile
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any, Generator, Iterator, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import EngineError, InputError, UsageError
from runtimes.llm.llama_cpp.library import Pieces
from runtimes.llm.llama_cpp.memory import LOGIT_ROWS, UBATCH
from runtimes.llm.llama_cpp.sampling import build_chain, choose_seed
from runtimes.llm.llama_cpp.sequence import EvaluatedSequence
from runtimes.llm.session import Finish, LlmFacts, TextOnly, TextOptions, Token
from runtimes.session import Closeable

_POLL_S = 0.03  # how often `cancel` is checked while another text is continued


@dataclass
class _Answer:
    """A continuation of `prompt` and its measurements."""

    prompt: list[int]
    options: TextOptions
    seed: int
    reused: int = 0
    generated: int = 0
    started: float = field(default_factory=time.perf_counter)
    first_scores: float | None = None
    decoder: Any = field(default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace"))

    @property
    def is_complete(self) -> bool:
        """Whether the maximum number of tokens has been generated."""
        return self.options.max_tokens is not None and self.generated >= self.options.max_tokens

    def token(self, token: int, piece: bytes) -> Token:
        """Return one token with the text that it completes."""
        self.generated += 1
        return Token(token, self.decoder.decode(piece))

    def last(self, reason: str) -> Token:
        """Return the last token, with the measurements."""
        now = time.perf_counter()
        scores = self.first_scores or now
        finish = Finish(
            reason,
            prompt_tokens=len(self.prompt),
            reused_tokens=self.reused,
            prompt_s=scores - self.started,
            tokens=self.generated,
            generate_s=now - scores,
            seed=self.seed,
        )
        return Token(None, self.decoder.decode(b"", final=True), finish)


class LlamaSession(TextOnly, Closeable):
    """See `runtimes.llm.session.TextSession`; `model` and `context` are llama.cpp's, and are freed by `close`."""

    def __init__(self, library: Any, model: Any, context: Any, facts: LlmFacts) -> None:
        self._library = library
        self._model = model
        self._context = context
        self._vocabulary = library.llama_model_get_vocab(model)
        self._pieces = Pieces(library, self._vocabulary)
        self._sequence = EvaluatedSequence(library, context)
        self._answering = threading.Lock()  # held from the first token of an answer to its last
        self._computing = threading.Lock()  # held while llama.cpp computes: its contexts are not thread-safe
        self._is_closed = False
        self.facts = facts
        shift = {"shift"} if self._sequence.can_move else set()
        self.capabilities = frozenset({"tokenize", "logits", "state", "quantize", *shift})

    def tokenize(self, text: str, *, special: bool = True, begin: bool = False) -> list[int]:
        """See `TextSession`."""
        content = text.encode("utf-8", "replace")
        room = len(content) + 2  # a token for every byte, BOS and EOS: enough for nearly all texts
        for _ in range(2):
            tokens = (self._library.llama_token * room)()
            count = self._library.llama_tokenize(
                self._vocabulary, content, len(content), tokens, room, begin and self.facts.adds_bos, special
            )
            if count >= 0:
                return list(tokens[:count])
            room = min(-count, 4 * room)  # the result is the size needed: a space is three bytes in SentencePiece
        raise EngineError("llama_cpp cannot tokenize this text", "edge inspect shows the model's tokenizer")

    def detokenize(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """See `TextSession`."""
        self._check(tokens)
        pieces = Pieces(self._library, self._vocabulary)
        return b"".join(pieces.of(token, special) for token in tokens).decode("utf-8", "replace")

    def generate(self, tokens: Sequence[int], options: TextOptions, cancel: Event | None = None) -> Iterator[Token]:
        """See `TextSession`; computes in the thread that iterates."""
        prompt = list(tokens)
        self._check(prompt)
        self._check_length(prompt)
        return self._answer(_Answer(prompt, options, choose_seed(options)), cancel)

    def logits(self, tokens: Sequence[int]) -> Array:
        """See `TextSession`."""
        self._check(tokens)
        self._check_length(tokens)
        with self._idle():
            return self._scores(list(tokens))

    def save_state(self, path: str) -> None:
        """See `TextSession`."""
        with self._idle():
            self._save(Path(path))

    def load_state(self, path: str) -> list[int]:
        """See `TextSession`."""
        with self._idle():
            return self._load(Path(path))

    def close(self) -> None:
        """See `TextSession`; a second call does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._sequence.stop()
        with self._computing:
            self._sequence.close()
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """Hold the model. Raises EngineError while it answers, UsageError if it is closed."""
        if not self._answering.acquire(blocking=False):
            raise EngineError("the model is busy with an answer", "wait for it to end")
        try:
            with self._computing:
                self._check(())
                yield
        finally:
            self._answering.release()

    def _answer(self, answer: _Answer, cancel: Event | None) -> Iterator[Token]:
        reason = "cancelled"
        if self._waits_for_turn(cancel):
            try:
                with self._sequence.stopped_by(cancel):
                    reason = yield from self._tokens(answer, cancel)
            finally:
                self._answering.release()
        yield answer.last(reason)  # the model is free already when the caller reads this

    def _waits_for_turn(self, cancel: Event | None) -> bool:
        """Wait until no other text is continued. Returns False if this one is cancelled meanwhile."""
        while not self._answering.acquire(timeout=_POLL_S):
            if self._is_over(cancel):
                return False
        return True

    def _is_over(self, cancel: Event | None) -> bool:
        return self._is_closed or (cancel is not None and cancel.is_set())

    def _tokens(self, answer: _Answer, cancel: Event | None) -> Generator[Token, None, str]:
        """Yield the tokens, and return why there are no more."""
        with self._computing:
            if self._is_over(cancel):
                return "cancelled"
            sampler = build_chain(self._library, self._vocabulary, answer.options, answer.prompt, answer.seed)
        try:
            pending: list[int] | None = None
            while self._read(answer, pending, cancel):
                token = self._draw(answer, sampler)
                if isinstance(token, str):
                    return token
                yield answer.token(token, self._pieces.of(token))
                if answer.is_complete:
                    return "length"
                if len(self._sequence.tokens) >= self.facts.context:
                    return "context"
                pending = [token]
            return "cancelled"
        finally:
            self._library.llama_sampler_free(sampler)

    def _read(self, answer: _Answer, tokens: list[int] | None, cancel: Event | None) -> bool:
        """Evaluate `tokens`, or the part of the prompt that is not in memory. Returns False if it was stopped."""
        while tokens is None or tokens:
            with self._computing:
                if self._is_over(cancel):
                    return False
                if tokens is None:
                    answer.reused = self._sequence.keep(answer.prompt)
                    tokens = answer.prompt[answer.reused :]
                if not self._sequence.read(tokens[:UBATCH]):
                    return False
            tokens = tokens[UBATCH:]
        return True

    def _draw(self, answer: _Answer, sampler: Any) -> int | str:
        """Choose the next token from the scores; or return why there is none."""
        answer.first_scores = answer.first_scores or time.perf_counter()
        if answer.is_complete:
            return "length"
        with self._computing:
            if self._is_closed:
                return "cancelled"
            token = int(self._library.llama_sampler_sample(sampler, self._context, -1))
            is_end = self._library.llama_vocab_is_eog(self._vocabulary, token)
        return "stop" if is_end and not answer.options.ignore_end else token

    def _scores(self, tokens: list[int]) -> Array:
        parts = []
        with self._sequence.stopped_by(None):
            try:
                self._sequence.forget()
                for start in range(0, len(tokens), LOGIT_ROWS):
                    part = tokens[start : start + LOGIT_ROWS]
                    self._sequence.read(part, all_scores=True)
                    values = self._library.llama_get_logits(self._context)
                    parts.append(np.ctypeslib.as_array(values, (len(part), self.facts.vocabulary)).copy())
            finally:
                self._sequence.forget()
        return np.concatenate(parts)

    def _save(self, path: Path) -> None:
        count = len(self._sequence.tokens)
        tokens = (self._library.llama_token * count)(*self._sequence.tokens)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        if not self._library.llama_state_seq_save_file(self._context, name.encode(), 0, tokens, count):
            Path(name).unlink()
            raise EngineError(f"the state cannot be saved to {path}", "check the free space on the disk")
        Path(name).replace(path)

    def _load(self, path: Path) -> list[int]:
        room, count = self.facts.context, ctypes.c_size_t()
        tokens = (self._library.llama_token * room)()
        self._sequence.forget()
        size = self._library.llama_state_seq_load_file(
            self._context, str(path).encode(), 0, tokens, room, ctypes.byref(count)
        )
        if not size:
            self._sequence.forget()
            raise InputError(f"{path} is not a saved state of this model", "evaluate the prompt again")
        self._sequence.tokens = list(tokens[: count.value])
        return list(self._sequence.tokens)

    def _check(self, tokens: Sequence[int]) -> None:
        if self._is_closed:
            raise UsageError("the session is closed", "open the model again")
        wrong = next((token for token in tokens if not 0 <= token < self.facts.vocabulary), None)
        if wrong is not None:  # llama.cpp would end the process
            raise InputError(f"the model has no token {wrong}", f"its tokens are 0 to {self.facts.vocabulary - 1}")

    def _check_length(self, tokens: Sequence[int]) -> None:
        if not tokens:
            raise InputError("there is nothing to continue", "pass at least one token; begin=True adds BOS")
        if len(tokens) > self.facts.context:
            message = f"the prompt has {len(tokens)} tokens, but the context only holds {self.facts.context}"
            raise InputError(message, "shorten it, or load the model with more context (--context)")
