"""The single computing thread: each step evaluates the next token of every running answer, and parts of new prompts.

llama.cpp's contexts are not thread-safe, and a step for all slots costs little more than one for a single slot, because
the weights are read only once. A long prompt is evaluated in parts, so it does not block running answers.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Sequence, Tuple

from runtimes.errors import EdgeError, EngineError
from runtimes.llm.llama_cpp.library import Pieces, StopFlag, last_error
from runtimes.llm.llama_cpp.memory import UBATCH
from runtimes.llm.llama_cpp.requests import Request, Slot

# Tokens of a prompt that are evaluated in one step while others wait for their next token.
_PART_BESIDE_OTHERS = 64
_ABORTED = 2  # a status of llama_decode

Row = Tuple[Slot, int, int, bool]  # slot, position, token, whether its scores are needed


class Scheduler:
    """Owns the context, which no other code may use; `context_size` is that of each slot, in tokens."""

    def __init__(self, library: Any, model: Any, context: Any, slots: int, context_size: int) -> None:
        self._library = library
        self._vocabulary = library.llama_model_get_vocab(model)
        self._context = context
        self._memory = library.llama_get_memory(context)
        self._can_move = bool(library.llama_memory_can_shift(self._memory))
        self._size = context_size
        self._slots = [Slot(number) for number in range(slots)]
        self._batch = library.llama_batch_init(UBATCH, 0, 1)
        self._stop = StopFlag()
        self._stop.attach(library, context)
        self._pieces = Pieces(library, self._vocabulary)
        self._waiting: deque[Request] = deque()
        self._tasks: deque[tuple[Future[Any], Callable[[], Any]]] = deque()
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="llama.cpp", daemon=True)
        self._thread.start()

    @property
    def can_move(self) -> bool:
        """Whether cached tokens can be moved to another position of the sequence."""
        return self._can_move

    def submit(self, request: Request) -> None:
        """Queue a request; it starts as soon as a slot is free."""
        with self._changed:
            if self._is_closed:
                self._drop(request)
                return
            self._waiting.append(request)
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """End a request; the running step is aborted unless it only serves other requests."""
        with self._changed:
            request.cancelled = True
            busy = [slot for slot in self._slots if slot.request is not None]
            own = [slot for slot in busy if slot.request is request]
            if own and (len(busy) == 1 or own[0].is_reading):
                self._stop.set()
            self._changed.notify()

    def call(self, task: Callable[[], Any]) -> Any:
        """Run `task` on the computing thread between two steps and return what it returns."""
        future: Future[Any] = Future()
        with self._changed:
            if self._is_closed:
                raise EngineError("the model is closed", "open it again")
            self._tasks.append((future, task))
            self._changed.notify()
        return future.result()

    def close(self) -> None:
        """End the running requests as cancelled, and the thread."""
        with self._changed:
            self._is_closed = True
            self._stop.set()
            self._changed.notify()
        self._thread.join()
        self._library.llama_batch_free(self._batch)

    # All methods below run on the computing thread.

    def free_slot(self) -> Slot:
        """Return the idle slot with the fewest cached tokens. Raises EngineError if all are busy."""
        idle = [slot for slot in self._slots if slot.request is None]
        if not idle:
            raise EngineError(
                "all slots of the model are busy", "wait for an answer to end, or load it with more slots"
            )
        return min(idle, key=lambda slot: len(slot.tokens))

    def slot(self, number: int) -> Slot:
        """Return the slot with that number. Raises EngineError if it is busy."""
        if self._slots[number].request is not None:
            raise EngineError(f"slot {number} of the model is busy", "wait for its answer to end")
        return self._slots[number]

    def forget(self, slot: Slot, kept: int = 0) -> None:
        """Drop all but the first `kept` cached tokens of a slot."""
        if not self._library.llama_memory_seq_rm(self._memory, slot.number, kept, -1):
            # Some networks cannot drop a part of their state, so everything is dropped.
            self._library.llama_memory_seq_rm(self._memory, slot.number, -1, -1)
            kept = 0
        del slot.tokens[kept:]

    def decode(self, rows: list[Row]) -> int:
        """Compute a batch and return llama_decode's status: 0 on success."""
        batch = self._batch
        batch.n_tokens = len(rows)
        for place, (slot, position, token, is_scored) in enumerate(rows):
            batch.token[place] = token
            batch.pos[place] = position
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = slot.number
            batch.logits[place] = is_scored
        return int(self._library.llama_decode(self._context, batch))

    def _run(self) -> None:
        while self._wait():
            try:
                self._admit()
                self._step()
            except Exception as error:  # a bug in edge or the engine is reported to all waiting requests
                self._fail(error if isinstance(error, EdgeError) else EngineError(f"llama_cpp failed: {error!r}"))
        for slot in self._slots:
            self._finish(slot, "cancelled")
        for request in self._waiting:
            self._drop(request)

    def _wait(self) -> bool:
        """Sleep until there is work, and run the tasks. Returns False at the end."""
        with self._changed:
            while not (self._is_closed or self._tasks or self._waiting or any(slot.request for slot in self._slots)):
                self._changed.wait()
            tasks, self._tasks = self._tasks, deque()
            is_closed = self._is_closed
        for future, task in tasks:
            if not is_closed:
                self._stop.clear()  # it may still be set by a cancelled request
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
        return not is_closed

    def _admit(self) -> None:
        """Assign waiting requests to free slots, each to the slot that has cached most of its prompt."""
        while True:
            with self._changed:
                idle = [slot for slot in self._slots if slot.request is None]
                if not idle or not self._waiting:
                    return
                request = self._waiting.popleft()
            if request.cancelled:
                self._drop(request)
                continue
            slot = max(idle, key=lambda one: plan(one.tokens, request.prompt, self._can_move).total)
            self._prepare(slot, request)

    def _prepare(self, slot: Slot, request: Request) -> None:
        """Keep and move the slot's cached tokens of the prompt; the rest becomes pending."""
        reuse = plan(slot.tokens, request.prompt, self._can_move)
        self.forget(slot, reuse.start + reuse.moved if reuse.moved else reuse.kept)
        if reuse.moved and slot.tokens:
            self._library.llama_memory_seq_rm(self._memory, slot.number, reuse.kept, reuse.start)
            shift = reuse.kept - reuse.start
            end = reuse.start + reuse.moved
            self._library.llama_memory_seq_add(self._memory, slot.number, reuse.start, end, shift)
            slot.tokens = request.prompt[: reuse.total]
        request.reused = len(slot.tokens)
        slot.pending = request.prompt[request.reused :]
        slot.request = request

    def _step(self) -> None:
        for slot in self._slots:
            if slot.request is not None and slot.request.cancelled:
                self._finish(slot, "cancelled")
        rows, counts = self._next_rows()
        if not rows:
            return
        self._stop.clear()
        if any(slot.request and slot.request.cancelled for slot in self._slots):
            return  # cancelled meanwhile: the flag that was set for it has just been cleared
        status = self.decode(rows)
        if status:
            self._undo(status, rows)
            return
        for number, count in counts.items():
            read = self._slots[number]
            read.tokens += read.pending[:count]
            del read.pending[:count]
        for place, (slot_of_row, _, _, is_scored) in enumerate(rows):
            if is_scored:
                self._draw(slot_of_row, place)

    def _next_rows(self) -> tuple[list[Row], dict[int, int]]:
        """Return the rows to compute next, and the number of tokens by slot."""
        rows: list[Row] = []
        counts: dict[int, int] = {}
        answering = [slot for slot in self._slots if slot.request and not slot.is_reading]
        reading = [slot for slot in self._slots if slot.is_reading]
        for slot in answering + reading:
            room = UBATCH - len(rows)
            if slot.is_reading and answering:
                room = min(room, _PART_BESIDE_OTHERS)
            part = slot.pending[:room]
            if not part:
                continue
            is_whole = len(part) == len(slot.pending)
            start, last = len(slot.tokens), len(part) - 1
            rows += [(slot, start + i, token, is_whole and i == last) for i, token in enumerate(part)]
            counts[slot.number] = len(part)
        return rows, counts

    def _undo(self, status: int, rows: list[Row]) -> None:
        """Drop what a failed step may have left in memory."""
        touched = {row[0].number for row in rows}
        for slot in self._slots:
            if slot.number in touched:
                pending = slot.tokens[:]
                self.forget(slot, len(slot.tokens))
                slot.pending = pending[len(slot.tokens) :] + slot.pending
        if status != _ABORTED:
            raise EngineError(
                f"llama_cpp cannot compute (llama_decode returned {status}){last_error()}", "try a shorter context"
            )

    def _draw(self, slot: Slot, place: int) -> None:
        """Choose the next token of a slot from the scores of the batch's row `place`."""
        request = slot.request
        assert request is not None
        if request.first_scores is None:
            request.first_scores = time.perf_counter()
        if request.generated >= request.limit:
            self._finish(slot, "length")
            return
        token = int(self._library.llama_sampler_sample(request.sampler, self._context, place))
        if not request.options.ignore_end and self._library.llama_vocab_is_eog(self._vocabulary, token):
            self._finish(slot, "stop")
            return
        request.give(token, self._pieces.of(token))
        if request.generated >= request.limit:
            self._finish(slot, "length")
        elif len(slot.tokens) >= self._size:
            self._finish(slot, "context")
        else:
            slot.pending = [token]

    def _finish(self, slot: Slot, reason: str) -> None:
        request, slot.request, slot.pending = slot.request, None, []
        if request is not None:
            self._library.llama_sampler_free(request.sampler)
            request.end(reason)

    def _drop(self, request: Request) -> None:
        """End a request that has no slot."""
        self._library.llama_sampler_free(request.sampler)
        request.end("cancelled")

    def _fail(self, error: EdgeError) -> None:
        for slot in self._slots:
            request, slot.request, slot.pending = slot.request, None, []
            if request is not None:
                self._library.llama_sampler_free(request.sampler)
                request.events.put(error)
            self.forget(slot)


# Shorter matches after a gap are not moved: they may be coincidental, and moving adds rounding errors.
_SHORTEST_MOVE = 16


@dataclass(frozen=True)
class Reuse:
    """How to reuse a slot's cached tokens as the beginning of a new sequence.

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
