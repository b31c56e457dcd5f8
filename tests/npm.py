"""The npm packages that tests of the browser's engines need, fetched once into the cache folder."""

from __future__ import annotations

import os
from functools import cache

import pytest

from converters.browser.engines import ENGINES
from converters.browser.packages import archive_of
from runtimes.errors import EdgeError


@cache
def missing() -> str:
    """Why the packages are not there; "" if they are."""
    try:
        for package in {file.package for one in ENGINES.values() for file in one.files(tuple(one.builds))}:
            archive_of(package)
    except EdgeError as error:
        return f"{error.message}: {error.hint}"
    return ""


def need_engines() -> None:
    """Skip the test where the packages are not there and cannot be fetched; CI has to have them."""
    if missing():
        assert not os.environ.get("CI"), missing()
        pytest.skip(missing())
