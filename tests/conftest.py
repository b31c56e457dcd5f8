"""Options of the whole suite."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--slow", action="store_true", help="run tests that make environments: minutes, gigabytes, network"
    )
    parser.addoption("--nightly", action="store_true", help="run tests over many networks: an hour or more")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for mark in ("slow", "nightly"):
        if config.getoption(f"--{mark}"):
            continue
        skipped = pytest.mark.skip(reason=f"{mark}: run it with --{mark}")
        for item in items:
            if mark in item.keywords:
                item.add_marker(skipped)
