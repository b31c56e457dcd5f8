"""How many inferences a second a machine finishes: in batches, and in sessions that run side by side."""

from __future__ import annotations

import threading
import time
from contextlib import ExitStack, closing
from typing import Callable, Sequence, TypedDict

import numpy as np

from runtimes.arrays import Arrays
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import UsageError
from runtimes.session import Session, format_shape

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


def batch_feeds(feeds: Arrays, inputs: Sequence[TensorSpec], batch: int | None) -> Arrays:
    """Repeat the first item of each input to a batch. Raises UsageError for an input whose batch is fixed."""
    if batch is None:
        return feeds
    for spec in inputs:
        if not spec.shape or (not isinstance(spec.shape[0], str) and spec.shape[0] != batch):
            what = f"the batch of input '{spec.name}' is fixed: {format_shape(spec.shape)}"
            raise UsageError(
                what, "convert the model with a free batch to measure others; ONNX and OpenVINO keep it free"
            )
    return {name: np.repeat(array[:1], batch, axis=0) for name, array in feeds.items()}
