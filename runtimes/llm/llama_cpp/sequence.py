"""The sequence of tokens in a context's memory: reuse what is there, evaluate more, stop in the middle.

The memory is worth keeping, because evaluating a prompt is the slow part of a chat. So a new prompt keeps the beginning
that it shares with the last one, and what follows a gap is moved to its new position.
"""

from __future__ import annotations

import threading
from array import array
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import Any, Iterator, Sequence

from runtimes.errors import EngineError
from runtimes.llm.llama_cpp.library import StopFlag, last_error
from runtimes.llm.llama_cpp.memory import UBATCH

_POLL_S = 0.03  # how often `cancel` is checked: a threading.Event cannot call back
_ABORTED = 2  # a status of llama_decode


class EvaluatedSequence:
    """Owns the memory of a context; `tokens` are in it, in this order."""

    def __init__(self, library: Any, context: Any) -> None:
        self._library = library
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._batch = library.llama_batch_init(UBATCH, 0, 1)
        self._stop = StopFlag()
        self._stop.attach(library, context)
        self._stopping = threading.Lock()
        self.can_move = bool(library.llama_memory_can_shift(self._memory))
        self.tokens: list[int] = []

    def keep(self, prompt: Sequence[int]) -> int:
        """Keep and move what `prompt` shares with the tokens, drop the rest, and return how many tokens are left."""
        reuse = plan(self.tokens, prompt, self.can_move)
        self.forget(reuse.start + reuse.moved if reuse.moved else reuse.kept)
        if reuse.moved and self.tokens:
            self._library.llama_memory_seq_rm(self._memory, 0, reuse.kept, reuse.start)
            shift, end = reuse.kept - reuse.start, reuse.start + reuse.moved
            self._library.llama_memory_seq_add(self._memory, 0, reuse.start, end, shift)
            self.tokens = list(prompt[: reuse.total])
        return len(self.tokens)

    def forget(self, kept: int = 0) -> None:
        """Drop all but the first `kept` tokens."""
        if not self._library.llama_memory_seq_rm(self._memory, 0, kept, -1):
            # Some networks cannot drop a part of their state, so everything is dropped.
            self._library.llama_memory_seq_rm(self._memory, 0, -1, -1)
            kept = 0
        del self.tokens[kept:]

    def read(self, tokens: Sequence[int], *, all_scores: bool = False) -> bool:
        """Evaluate at most UBATCH tokens; the last one gets scores, or all of them do.

        Returns False if it was stopped. Raises EngineError if llama.cpp cannot compute.
        """
        batch, start = self._batch, len(self.tokens)
        batch.n_tokens = len(tokens)
        for place, token in enumerate(tokens):
            batch.token[place] = token
            batch.pos[place] = start + place
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = 0
            batch.logits[place] = all_scores or place == len(tokens) - 1
        status = int(self._library.llama_decode(self._context, batch))
        if status == 0:
            self.tokens += tokens
            return True
        self.forget(start)  # what a failed step may have left in memory
        if status == _ABORTED:
            return False
        message = f"llama_cpp cannot compute (llama_decode returned {status}){last_error()}"
        raise EngineError(message, "try a shorter context")

    @contextmanager
    def stopped_by(self, cancel: Event | None) -> Iterator[None]:
        """Let `cancel` stop an evaluation while this block runs."""
        self._stop.clear()
        over = Event()

        def watch() -> None:
            while not over.is_set():
                if cancel is not None and cancel.wait(_POLL_S):
                    with self._stopping:
                        if not over.is_set():
                            self._stop.set()
                    return

        if cancel is not None:
            threading.Thread(target=watch, name="cancel", daemon=True).start()
        try:
            yield
        finally:
            with self._stopping:
                over.set()

    def stop(self) -> None:
        """Stop the running evaluation."""
        self._stop.set()

    def close(self) -> None:
        """Free the batch; the context is its owner's."""
        self._library.llama_batch_free(self._batch)


# Shorter matches after a gap are not moved: they may be coincidental, and moving adds rounding errors.
_SHORTEST_MOVE = 16


@dataclass(frozen=True)
class Reuse:
    """How to reuse evaluated tokens as the beginning of a new sequence.

    The first `kept` tokens stay; `moved` tokens from position `start` follow directly after them; the rest is dropped.
    """

    kept: int
    start: int = 0
    moved: int = 0

    @property
    def total(self) -> int:
        """The number of tokens that need not be evaluated."""
        return self.kept + self.moved


def plan(read: Sequence[int], wanted: Sequence[int], can_move: bool) -> Reuse:
    """Plan how to reuse `read` for `wanted`; the last token is always evaluated again, for its scores."""
    most = len(wanted) - 1
    kept = _common(read, wanted, 0, 0, most)
    if not can_move or kept == len(read) or most - kept < _SHORTEST_MOVE:
        return Reuse(kept)
    start = _find(read, wanted[kept : kept + _SHORTEST_MOVE], kept + 1)
    if start is None:
        return Reuse(kept)
    return Reuse(kept, start, _common(read, wanted, start, kept, most - kept))


def _common(read: Sequence[int], wanted: Sequence[int], start: int, at: int, most: int) -> int:
    """Count the equal tokens of `read` from `start` and `wanted` from `at`, up to `most`."""
    count = 0
    most = min(most, len(read) - start)
    while count < most and read[start + count] == wanted[at + count]:
        count += 1
    return count


def _find(read: Sequence[int], some: Sequence[int], start: int) -> int | None:
    """Return the first position from `start` where `read` contains `some`; None if there is none."""
    # As bytes, so that the search runs in C: in Python it is too slow for a context of 100,000 tokens.
    whole, part = array("i", read).tobytes(), array("i", some).tobytes()
    width = array("i").itemsize
    at = whole.find(part, start * width)
    while at % width and at >= 0:  # a match across the boundary of two tokens
        at = whole.find(part, at + 1)
    return at // width if at >= 0 else None
