"""The session behind the server: its slots, the queue before them, and its next life when its process dies.

Everything here runs on the event loop, but for the session's own calls, which block and have threads: one for each
slot, and one more for what is short (tokens, templates). A slot is free again when its thread has come back, however
its request ended.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager, suppress
from typing import TypeVar

from edge.serve.problems import Problem, problem_of
from runtimes.errors import EdgeError, WorkerError
from runtimes.text import ModelFacts, TextOptions, TextSession, Token

T = TypeVar("T")

_BEAT_S = 10.0  # a sign of life so often, while a prompt is read or a slot waited for
_LONGEST_RETRY_S = 60
_STOPPING = "the server is stopping"


class Engine:
    """A TextSession for many clients; `opener` loads the model, at first and when the engine has died."""

    def __init__(self, session: TextSession, opener: Callable[[], TextSession], queue: int) -> None:
        self.facts: ModelFacts = session.facts
        self.slots = max(session.facts.slots, 1)
        self.restarts = 0
        self.busy = 0
        self._session: TextSession | None = session
        self._opener = opener
        self._queue = queue
        self._present = 0
        self._mean_s = 1.0  # of the last answers, the newest counting most
        self._free = asyncio.Semaphore(self.slots)
        self._opening = asyncio.Lock()
        self._stopping = False
        self._cancels: set[threading.Event] = set()
        self._background: set[asyncio.Task[object]] = set()
        self._writers = ThreadPoolExecutor(self.slots, "answer")
        self._clerk = ThreadPoolExecutor(1, "clerk")

    @property
    def waiting(self) -> int:
        """Requests that are here and have no slot."""
        return max(self._present - self.busy, 0)

    @property
    def is_well(self) -> bool:
        """Whether a model is loaded."""
        return self._session is not None and not self._stopping

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place for one request, in a slot or in the queue; Problem 429 where all are taken."""
        if self._stopping:
            raise Problem(503, _STOPPING, code="stopping", retry_after=5)
        if self._present >= self.slots + self._queue:
            raise Problem(429, "too many requests are waiting", code="queue_full", retry_after=self._retry_s())
        self._present += 1
        try:
            yield
        finally:
            self._present -= 1

    async def ask(self, question: Callable[[TextSession], T]) -> T:
        """The session's answer to something short; asked once more when its process turns out to be dead."""
        loop = asyncio.get_running_loop()
        for is_last in (False, True):
            session = await self._ready()
            try:
                return await loop.run_in_executor(self._clerk, question, session)
            except WorkerError as error:
                self._died(session)
                if is_last:
                    raise problem_of(error) from None
        raise AssertionError

    async def tokens(
        self, prompt: list[int], options: TextOptions, cancel: threading.Event
    ) -> AsyncGenerator[Token | None]:
        """The answer, token by token, with None as a sign of life in between; setting `cancel` ends it soon."""
        async with aclosing(self._turn()) as beats:
            async for _ in beats:
                yield None
        try:
            session = await self._ready()
            run = _Run(session, prompt, options, cancel, self._writers)
        except BaseException:
            self._free.release()
            raise
        self._begin(run, cancel)
        try:
            async with aclosing(run.tokens()) as tokens:
                async for token in tokens:
                    yield token
        except WorkerError as error:
            self._died(session)
            raise problem_of(error) from None
        except EdgeError as error:
            raise problem_of(error) from None
        finally:
            cancel.set()
            run.leave()

    def stop(self) -> None:
        """End what is under way and refuse what comes."""
        self._stopping = True
        for cancel in self._cancels:
            cancel.set()
        for _ in range(self.waiting):  # those who wait come on, and are told
            self._free.release()

    def close(self) -> None:
        """Give back the model and the threads; blocks until the last answer has ended."""
        self._stopping = True
        session, self._session = self._session, None
        if session is not None:
            session.close()
        self._writers.shutdown()
        self._clerk.shutdown()

    async def _turn(self) -> AsyncGenerator[None]:
        """Take a slot, in the order of asking; None is a sign of life while there is none."""
        turn = asyncio.ensure_future(self._free.acquire())
        try:
            while not (await asyncio.wait({turn}, timeout=_BEAT_S))[0]:
                yield None
        except BaseException:  # the client has left
            if not turn.cancel():
                self._free.release()
            raise

    def _begin(self, run: _Run, cancel: threading.Event) -> None:
        began = time.monotonic()
        self.busy += 1
        self._cancels.add(cancel)

        def end(_future: asyncio.Future[None]) -> None:
            self.busy -= 1
            self._cancels.discard(cancel)
            self._mean_s += (time.monotonic() - began - self._mean_s) / 4
            self._free.release()

        run.future.add_done_callback(end)

    async def _ready(self) -> TextSession:
        """The session, opened again where the last one has died; Problem 503 where that fails."""
        async with self._opening:
            if self._stopping:
                raise Problem(503, _STOPPING, code="stopping", retry_after=5)
            if self._session is None:
                try:
                    self._session = await asyncio.to_thread(self._opener)
                except EdgeError as error:
                    message = f"the model cannot be loaded again: {error.message}"
                    raise Problem(503, message, code="engine_unavailable", retry_after=5) from None
            return self._session

    def _died(self, session: TextSession) -> None:
        """Load the model again, once for all who were there when it died."""
        if self._session is not session:
            return
        self._session = None
        self.restarts += 1
        for task in (asyncio.to_thread(_close, session), self._come_back()):
            running = asyncio.ensure_future(task)
            self._background.add(running)
            running.add_done_callback(self._background.discard)

    async def _come_back(self) -> None:
        with suppress(Problem):  # the next request tries again, and is told
            await self._ready()

    def _retry_s(self) -> int:
        expected = self._mean_s * (self.waiting + 1) / self.slots
        return min(max(math.ceil(expected), 1), _LONGEST_RETRY_S)


class _Run:
    """One continuation in a thread of its own, read from the event loop."""

    def __init__(
        self,
        session: TextSession,
        prompt: list[int],
        options: TextOptions,
        cancel: threading.Event,
        threads: ThreadPoolExecutor,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        # Unbounded, yet short: an answer is no longer than the context. A client that reads slowly holds no slot.
        self._items: asyncio.Queue[Token | Exception | None] = asyncio.Queue()
        self._is_left = False
        self.future = self._loop.run_in_executor(threads, self._write, session, prompt, options, cancel)

    async def tokens(self) -> AsyncGenerator[Token | None]:
        """What the thread writes; its exception is raised here."""
        while True:
            try:
                async with asyncio.timeout(_BEAT_S):
                    item = await self._items.get()
            except TimeoutError:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            yield item

    def leave(self) -> None:
        """Nobody reads on: what the engine has made already is not waited for."""
        self._is_left = True

    def _write(self, session: TextSession, prompt: list[int], options: TextOptions, cancel: threading.Event) -> None:
        try:
            for token in session.generate(prompt, options, cancel):
                self._put(token)
                if self._is_left:
                    break
        except Exception as error:
            self._put(error)
        self._put(None)

    def _put(self, item: Token | Exception | None) -> None:
        with suppress(RuntimeError):  # the loop is gone: the server was made to end at once
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)


def _close(session: TextSession) -> None:
    with suppress(EdgeError):
        session.close()
