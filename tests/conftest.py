"""Options of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run tests that make environments: minutes, gigabytes, network"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--slow"):
        return
    skipped = pytest.mark.skip(reason="slow: run it with --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skipped)
