"""Run the suite in several processes (pytest-xdist): distribute the tests, and share files.

A module's tests stay together in one process, so that its fixtures are made once; so do those of modules that share
fixtures which are made once a session. The modules that took longest the last time begin, so that no process works on
alone at the end.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

try:
    import fcntl
except ImportError:  # Windows: there the suite runs in one process
    fcntl = None  # type: ignore[assignment]

_SECONDS = "edge/seconds"  # in pytest's cache: {module: what its tests took}
# Module → the one whose process it shares: both read what the same commands answer, each of which is run once.
_TOGETHER = {"tests/compatibility/test_json.py": "tests/compatibility/test_schemas.py"}
# Each engine starts a thread for each core unless told otherwise, in every process of the suite.
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def share_cores() -> None:
    """Limit this process to its share of the cores if it is one of several; its child processes inherit that."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        share = max(1, (os.cpu_count() or 1) // processes)
        for name in _THREADS:
            os.environ.setdefault(name, str(share))
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads leave the core to the others


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that `make` fills once for all processes of this run; the other processes wait for it."""
    parallel = "PYTEST_XDIST_WORKER" in os.environ
    folder: Path = (factory.getbasetemp().parent if parallel else factory.getbasetemp()) / name
    done = folder.with_name(f"{name}.done")
    with _locked(folder.with_name(f"{name}.lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one that failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as held:
        if fcntl is not None:
            fcntl.flock(held, fcntl.LOCK_EX)
        yield


class Durations:
    """Adds up what each module's tests take, for the next run."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[module_of(report.nodeid)] += report.duration

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        cache = _cache_of(session.config)
        if cache is not None and "PYTEST_XDIST_WORKER" not in os.environ:
            known = known_seconds(session.config)
            # A run of only a few tests is not representative of the module.
            cache.set(_SECONDS, known | {name: max(took, known.get(name, 0)) for name, took in self._seconds.items()})


def known_seconds(config: pytest.Config) -> dict[str, float]:
    """Return the seconds of each module in earlier runs."""
    cache = _cache_of(config)
    found = cache.get(_SECONDS, {}) if cache is not None else {}
    return {name: float(took) for name, took in found.items()}


def _cache_of(config: pytest.Config) -> pytest.Cache | None:
    """Return pytest's cache; None with `-p no:cacheprovider`."""
    found: pytest.Cache | None = getattr(config, "cache", None)
    return found


def module_of(nodeid: str) -> str:
    """Return the file of a test."""
    return nodeid.partition("::")[0]


def longest_first(config: pytest.Config, log: Any) -> Any:
    """xdist's scheduler by module: first unknown modules by their number of tests, then the longest ones."""
    from xdist.scheduler import LoadScopeScheduling

    seconds = known_seconds(config)

    class LongestFirst(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = module_of(nodeid)
            return _TOGETHER.get(module, module)

        def _assign_work_unit(self, node: Any) -> None:
            longest = max(self.workqueue, key=lambda module: seconds.get(module, float("inf")))
            self.workqueue.move_to_end(longest, last=False)  # the front is what xdist hands out
            super()._assign_work_unit(node)

        def remove_node(self, node: Any) -> Any:
            """Take what a lost process had not run back into the queue, without the test that ended it."""
            lost = self.assigned_work.pop(node)
            waiting = [(module, test) for module, tests in lost.items() for test, done in tests.items() if not done]
            if not waiting:
                return None
            module, ended_by = waiting[0]
            lost[module][ended_by] = True
            self.workqueue.update({module: tests for module, tests in lost.items() if not all(tests.values())})
            for other in self.nodes:
                self._reschedule(other)
            return ended_by

        def _reschedule(self, node: Any) -> None:
            if node in self.registered_collections:  # else it has just begun in a lost one's place
                super()._reschedule(node)

        def schedule(self) -> None:
            """Distribute the tests; called again for each process that takes a lost one's place.

            A process waits with the last test that it was given until it is given more, or told that no more will
            come. xdist tells the late ones only when they end a test: with one test left they would wait for ever.
            """
            super().schedule()
            if not self.workqueue:
                for node in self.nodes:
                    node.shutdown()

    return LongestFirst(config, log)
