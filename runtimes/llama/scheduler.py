"""The one thread that computes: each step takes the next token of every running answer, and parts of new prompts.

llama.cpp's contexts are not for several threads, and one step for all slots costs little more than one for a single
slot, since the weights are read once. A long prompt is read in parts between the steps, so it starves no answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from concurrent.futures import Future
from typing import Any, Callable, Tuple

from runtimes.errors import EdgeError, EngineError
from runtimes.llama.library import Pieces, StopFlag, complaint
from runtimes.llama.memory import UBATCH
from runtimes.llama.requests import Request, Slot
from runtimes.llama.reuse import plan

# How much of a prompt is read in one step while others wait for their next token.
_PART_BESIDE_OTHERS = 64
_ABORTED = 2  # of llama_decode

Row = Tuple[Slot, int, int, bool]  # slot, position, token, whether its scores are wanted


class Scheduler:
    """Owns the context: nobody else may call llama.cpp with it. `context_size` is that of each slot, in tokens."""

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
        """Whether what was read can be moved to another place of the sequence."""
        return self._can_move

    def submit(self, request: Request) -> None:
        """Take up a request as soon as a slot is free."""
        with self._changed:
            if self._is_closed:
                self._drop(request)
                return
            self._waiting.append(request)
            self._changed.notify()

    def cancel(self, request: Request) -> None:
        """End a request; what is being computed is left at once, unless only others gain from it."""
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
        """End what is under way as cancelled, and the thread."""
        with self._changed:
            self._is_closed = True
            self._stop.set()
            self._changed.notify()
        self._thread.join()
        self._library.llama_batch_free(self._batch)

    # All below runs on the computing thread.

    def free_slot(self) -> Slot:
        """A slot without a request, the one that has read least; EngineError where all are busy."""
        idle = [slot for slot in self._slots if slot.request is None]
        if not idle:
            raise EngineError(
                "all slots of the model are busy", "wait for an answer to end, or load it with more slots"
            )
        return min(idle, key=lambda slot: len(slot.tokens))

    def slot(self, number: int) -> Slot:
        """The slot of that number; EngineError while it is busy."""
        if self._slots[number].request is not None:
            raise EngineError(f"slot {number} of the model is busy", "wait for its answer to end")
        return self._slots[number]

    def forget(self, slot: Slot, kept: int = 0) -> None:
        """Drop all but the first `kept` tokens that a slot has read."""
        if not self._library.llama_memory_seq_rm(self._memory, slot.number, kept, -1):
            # Some networks cannot forget a part: then nothing of it is kept.
            self._library.llama_memory_seq_rm(self._memory, slot.number, -1, -1)
            kept = 0
        del slot.tokens[kept:]

    def decode(self, rows: list[Row]) -> int:
        """Compute a batch and return llama_decode's status: 0 where all went well."""
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
            except Exception as error:  # a mistake of ours or of the engine: told to all who wait, never swallowed
                self._fail(error if isinstance(error, EdgeError) else EngineError(f"llama_cpp failed: {error!r}"))
        for slot in self._slots:
            self._finish(slot, "cancelled")
        for request in self._waiting:
            self._drop(request)

    def _wait(self) -> bool:
        """Sleep until there is something to do and do the tasks; False at the end."""
        with self._changed:
            while not (self._is_closed or self._tasks or self._waiting or any(slot.request for slot in self._slots)):
                self._changed.wait()
            tasks, self._tasks = self._tasks, deque()
            is_closed = self._is_closed
        for future, task in tasks:
            if not is_closed:
                self._stop.clear()  # left over from an answer that was cancelled
            try:
                future.set_result(task())
            except BaseException as error:
                future.set_exception(error)
        return not is_closed

    def _admit(self) -> None:
        """Give waiting requests to free slots, each to the one that has read most of it."""
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
        """Keep and move what the slot has read of the prompt; the rest is to be read."""
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
            return  # cancelled since: the flag was cleared over it
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
        """What to compute next, and how many tokens of each slot that is."""
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
        """Forget what a step that did not end well may have left in memory."""
        touched = {row[0].number for row in rows}
        for slot in self._slots:
            if slot.number in touched:
                pending = slot.tokens[:]
                self.forget(slot, len(slot.tokens))
                slot.pending = pending[len(slot.tokens) :] + slot.pending
        if status != _ABORTED:
            raise EngineError(
                f"llama_cpp cannot compute (llama_decode gave {status}){complaint()}", "try a shorter context"
            )

    def _draw(self, slot: Slot, place: int) -> None:
        """The next token of a slot, from the scores of the batch's row `place`."""
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
        """End a request that no slot has taken up."""
        self._library.llama_sampler_free(request.sampler)
        request.end("cancelled")

    def _fail(self, error: EdgeError) -> None:
        for slot in self._slots:
            request, slot.request, slot.pending = slot.request, None, []
            if request is not None:
                self._library.llama_sampler_free(request.sampler)
                request.events.put(error)
            self.forget(slot)
