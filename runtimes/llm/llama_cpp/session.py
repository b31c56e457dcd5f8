"""A language model loaded through llama.cpp: the TextSession over the scheduler."""

from __future__ import annotations

import ctypes
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from queue import Empty
from threading import Event
from typing import Any, Iterator, Sequence

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import EdgeError, EngineError, InputError, UsageError
from runtimes.llm.llama_cpp.library import Pieces
from runtimes.llm.llama_cpp.memory import LOGIT_ROWS
from runtimes.llm.llama_cpp.requests import Request
from runtimes.llm.llama_cpp.sampling import chain, drawn_seed
from runtimes.llm.llama_cpp.scheduler import Scheduler
from runtimes.llm.session import LlmFacts, TextOnly, TextOptions, Token

# How often `cancel` is checked while no token arrives: a threading.Event cannot wake a queue.
_POLL_S = 0.03


class LlamaSession(TextOnly):
    """See `runtimes.llm.session.TextSession`; `model` and `context` are llama.cpp's, and are freed by `close`."""

    def __init__(self, library: Any, model: Any, context: Any, facts: LlmFacts) -> None:
        self._library = library
        self._model = model
        self._context = context
        self._vocabulary = library.llama_model_get_vocab(model)
        self._scheduler = Scheduler(library, model, context, facts.slots, facts.context)
        self._is_closed = False
        self.facts = facts
        shift = {"shift"} if self._scheduler.can_move else set()
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
        """See `TextSession`."""
        prompt = list(tokens)
        self._check(prompt)
        self._check_length(prompt)
        seed = drawn_seed(options)
        request = Request(prompt, options, seed, sampler=chain(self._library, self._vocabulary, options, prompt, seed))
        self._scheduler.submit(request)
        return self._events(request, cancel)

    def logits(self, tokens: Sequence[int]) -> Array:
        """See `TextSession`."""
        self._check(tokens)
        self._check_length(tokens)
        scores: Array = self._scheduler.call(lambda: self._scores(list(tokens)))
        return scores

    def save_state(self, path: str) -> None:
        """See `TextSession`."""
        self._scheduler.call(lambda: self._save(Path(path)))

    def load_state(self, path: str) -> list[int]:
        """See `TextSession`."""
        tokens: list[int] = self._scheduler.call(lambda: self._load(Path(path)))
        return tokens

    def close(self) -> None:
        """See `TextSession`; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            self._scheduler.close()
            self._library.llama_free(self._context)
            self._library.llama_model_free(self._model)

    def __enter__(self) -> LlamaSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _events(self, request: Request, cancel: Event | None) -> Iterator[Token]:
        is_over = False
        try:
            while not is_over:
                event = self._next(request, cancel)
                if isinstance(event, EdgeError):
                    is_over = True
                    raise event
                is_over = event.finish is not None
                yield event
        finally:
            if not is_over:  # the caller stopped early
                self._scheduler.cancel(request)

    def _next(self, request: Request, cancel: Event | None) -> Token | EdgeError:
        while True:
            if cancel is not None and cancel.is_set() and not request.cancelled:  # also while tokens come quickly
                self._scheduler.cancel(request)
            with suppress(Empty):
                event = request.events.get(timeout=None if cancel is None or request.cancelled else _POLL_S)
                if not request.cancelled or isinstance(event, EdgeError) or event.finish is not None:
                    return event  # tokens that were generated before the cancellation are skipped

    def _scores(self, tokens: list[int]) -> Array:
        slot = self._scheduler.free_slot()
        self._scheduler.forget(slot)
        parts = []
        try:
            for start in range(0, len(tokens), LOGIT_ROWS):
                part = tokens[start : start + LOGIT_ROWS]
                status = self._scheduler.decode([(slot, start + i, token, True) for i, token in enumerate(part)])
                if status:
                    raise EngineError(f"llama_cpp cannot compute (llama_decode returned {status})", "try fewer tokens")
                values = self._library.llama_get_logits(self._context)
                parts.append(np.ctypeslib.as_array(values, (len(part), self.facts.vocabulary)).copy())
        finally:
            self._scheduler.forget(slot)
        return np.concatenate(parts)

    def _save(self, path: Path) -> None:
        slot = self._scheduler.slot(0)
        tokens = (self._library.llama_token * len(slot.tokens))(*slot.tokens)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)
        size = self._library.llama_state_seq_save_file(self._context, name.encode(), 0, tokens, len(slot.tokens))
        if not size:
            Path(name).unlink()
            raise EngineError(f"the state cannot be saved to {path}", "check the free space on the disk")
        Path(name).replace(path)

    def _load(self, path: Path) -> list[int]:
        slot = self._scheduler.slot(0)
        room, count = self.facts.context, ctypes.c_size_t()
        tokens = (self._library.llama_token * room)()
        self._scheduler.forget(slot)
        size = self._library.llama_state_seq_load_file(
            self._context, str(path).encode(), 0, tokens, room, ctypes.byref(count)
        )
        if not size:
            self._scheduler.forget(slot)
            raise InputError(f"{path} is not a saved state of this model", "evaluate the prompt again")
        slot.tokens = list(tokens[: count.value])
        return list(slot.tokens)

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
