"""Options of the whole suite, its real data, its distribution over several processes, and the number of its tests."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import pytest

from tests import parallel
from tests.real_data import data  # noqa: F401 - a fixture

os.environ.setdefault("EDGE_HISTORY", "off")  # tests measure, and the user's history is not theirs
parallel.share_cores()  # before an engine is imported

_COLLECTED = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run tests that make environments: minutes, gigabytes, network"
    )
    parser.addoption("--nightly", action="store_true", help="run tests over many networks: an hour or more")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(parallel.Durations())
    if "CI" in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:
        config.pluginmanager.register(FailuresAtOnce(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark in ("slow", "nightly"):
        if config.getoption(f"--{mark}"):
            continue
        skipped = pytest.mark.skip(reason=f"{mark}: run it with --{mark}")
        for item in items:
            if mark in item.keywords:
                item.add_marker(skipped)


def pytest_collection_finish(session: pytest.Session) -> None:
    session.config.stash[_COLLECTED] = len(session.items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node: Any, ids: Sequence[str]) -> None:
    node.config.stash[_COLLECTED] = len(ids)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return parallel.longest_first(config, log)


class FailuresAtOnce:
    """Prints a failure when it happens: a run that is stopped from outside never reaches its summary."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.write_line(f"\nFAILED {report.nodeid}\n{report.longreprtext[-3000:]}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.write_line(f"tests collected: {config.stash.get(_COLLECTED, 0)}")
