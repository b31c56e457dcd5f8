"""How many inferences a second a machine finishes, if several run at the same time, each in a session of its own."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from typing import Callable, TypedDict

from runtimes.arrays import Arrays
from runtimes.session import Session

SECONDS = 3.0


class ThroughputSummary(TypedDict):
    """The keys of a throughput in JSON; `threads` are those of each stream, `fps` counts the items of a batch."""

    streams: int
    threads: int
    seconds: float
    runs: int
    fps: float


def measure_throughput(
    open_session: Callable[[], Session], feeds: Arrays, streams: int, threads: int, batch: int, seconds: float = SECONDS
) -> ThroughputSummary:
    """Run `streams` sessions side by side for `seconds`, after one inference of each."""
    counts = [0] * streams
    failures: list[Exception] = []
    begin = threading.Event()
    with ExitStack() as stack:
        sessions = [stack.enter_context(closing(open_session())) for _ in range(streams)]
        for session in sessions:
            session.run(feeds)

        def stream(place: int) -> None:
            begin.wait()
            try:
                while time.perf_counter() < deadline:
                    sessions[place].run(feeds)
                    counts[place] += 1
            except Exception as error:  # raised again below, in the thread that reports it
                failures.append(error)

        workers = [threading.Thread(target=stream, args=(place,)) for place in range(streams)]
        for worker in workers:
            worker.start()
        start = time.perf_counter()
        deadline = start + seconds
        begin.set()
        for worker in workers:
            worker.join()
        took = time.perf_counter() - start
    if failures:
        raise failures[0]
    runs = sum(counts)
    return {"streams": streams, "threads": threads, "seconds": took, "runs": runs, "fps": runs * batch / took}
