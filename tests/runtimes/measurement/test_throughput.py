"""Streams side by side: what is counted, and what fails."""

from __future__ import annotations

import numpy as np
import pytest

from runtimes.errors import EngineError
from runtimes.measurement.throughput import measure_throughput


class Session:
    """A session that counts, and fails where it is told to."""

    def __init__(self, opened: list[Session], fails_after: int | None) -> None:
        opened.append(self)
        self.runs, self.is_closed, self._fails_after = 0, False, fails_after

    def run(self, _feeds: object) -> dict[str, np.ndarray]:
        self.runs += 1
        if self._fails_after is not None and self.runs > self._fails_after:
            raise EngineError("out of memory")
        return {}

    def close(self) -> None:
        self.is_closed = True


def test_every_stream_has_a_session_of_its_own_and_all_inferences_count() -> None:
    opened: list[Session] = []
    found = measure_throughput(lambda: Session(opened, None), {}, streams=3, threads=1, batch=4, seconds=0.1)
    assert len(opened) == 3
    assert all(one.is_closed for one in opened)
    assert found["runs"] == sum(one.runs - 1 for one in opened)  # without the first of each
    assert found["fps"] == pytest.approx(found["runs"] * 4 / found["seconds"])
    assert (found["streams"], found["threads"]) == (3, 1)


def test_a_stream_that_fails_is_an_error_and_all_sessions_are_closed() -> None:
    opened: list[Session] = []
    with pytest.raises(EngineError, match="out of memory"):
        measure_throughput(lambda: Session(opened, 5), {}, streams=2, threads=1, batch=1, seconds=0.1)
    assert all(one.is_closed for one in opened)
