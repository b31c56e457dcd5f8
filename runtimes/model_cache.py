"""Keeps a model open between jobs: a camera sends one job per frame."""

from __future__ import annotations

import time
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from runtimes.arrays import Arrays
from runtimes.artifact import Artifact
from runtimes.joined_session import open_like_source
from runtimes.session import RunOptions, Session, TensorEngine


class WarmSession:
    """A session that times its first inference separately, since it includes weight upload and memory planning."""

    def __init__(self, session: Session, *, keeps_state: bool = False) -> None:
        """Take the open session; `keeps_state` says whether each inference changes what the next one answers."""
        self.session = session
        self.keeps_state = keeps_state
        self.first_ms: float | None = None

    def warm_up(self, feeds: Arrays) -> float:
        """Run once if nothing has run yet. Returns the duration of the first inference in ms."""
        if self.first_ms is None:
            start = time.perf_counter_ns()
            self.session.run(feeds)
            self.first_ms = (time.perf_counter_ns() - start) / 1e6
        return self.first_ms


class ModelCache:
    """Keeps at most one model open, as long as the same one is requested. Not thread-safe."""

    def __init__(self) -> None:
        self._key: tuple[object, ...] = ()
        self._model: WarmSession | None = None

    @contextmanager
    def using(self, artifact: Artifact, engine: TensorEngine, options: RunOptions) -> Iterator[WarmSession]:
        """Yield the session of this model, opening it if it is not the one in the cache.

        Raises what `TensorEngine.open` raises. An error inside the block closes the session, because the state of an
        engine after an error is unknown.
        """
        key = _key(artifact, engine, options)
        if self._model is None or key != self._key:
            self.close()  # first: memory may not hold two models, and a USB stick serves one process
            session = open_like_source(engine, artifact, options)
            self._model, self._key = WarmSession(session, keeps_state=engine.keeps_state(artifact)), key
        try:
            yield self._model
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the open session, if any."""
        model, self._model = self._model, None
        if model is not None:
            model.session.close()


def _key(artifact: Artifact, engine: TensorEngine, options: RunOptions) -> tuple[object, ...]:
    settings = tuple(sorted(options.settings.items()))
    return (str(artifact.model), _state(artifact.model), engine.id, options.threads, options.device, settings)


def _state(path: Path) -> tuple[int, ...]:
    """Return a value that changes when the file is overwritten; empty if it does not exist."""
    try:
        state = path.stat()
    except OSError:  # the engine will say so when it opens it
        return ()
    return (state.st_mtime_ns, state.st_size)
