"""A model that stays open from one job to the next: a camera sends a job for each frame."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from runtimes.arrays import Arrays
from runtimes.artifact import Artifact
from runtimes.session import RunOptions, Runtime, Session


class WarmModel:
    """A session with its first inference, `first_ms`, told apart: weights are uploaded, memory is planned in it."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.first_ms: float | None = None

    def warm_up(self, feeds: Arrays) -> float:
        """Run once, where nothing was run yet; how long that first inference took, in ms."""
        if self.first_ms is None:
            start = time.perf_counter_ns()
            self.session.run(feeds)
            self.first_ms = (time.perf_counter_ns() - start) / 1e6
        return self.first_ms


class OpenModel:
    """At most one model, open for as long as the same one is asked for. Not for several threads."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._model: WarmModel | None = None

    @contextmanager
    def using(self, artifact: Artifact, engine: Runtime, options: RunOptions) -> Iterator[WarmModel]:
        """The model, opened where another one is open or none; raises as `Runtime.open` does.

        What fails inside the block closes it: nobody knows what state an engine is in after an error.
        """
        key = _key(artifact, engine, options)
        if self._model is None or key != self._key:
            self.close()  # first: two models need the memory of two, and a stick takes one program's
            self._model, self._key = WarmModel(engine.open(artifact, options)), key
        try:
            yield self._model
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give back what is open, if anything is."""
        model, self._model = self._model, None
        if model is not None:
            model.session.close()


def _key(artifact: Artifact, engine: Runtime, options: RunOptions) -> tuple[object, ...]:
    settings = tuple(sorted(options.settings.items()))
    return (str(artifact.model), _state(artifact.model), engine.id, options.threads, options.device, settings)


def _state(path: Path) -> tuple[int, ...]:
    """What changes where another file is written under the same name; empty where there is none."""
    try:
        state = path.stat()
    except OSError:  # the engine will say so when it opens it
        return ()
    return (state.st_mtime_ns, state.st_size)
