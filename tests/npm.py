"""The npm packages that tests of the browser's engines and page need, fetched once into the cache folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest

from converters.browser.engines import ENGINES, NpmPackage
from converters.browser.packages import archive_of
from runtimes.errors import EdgeError

# The last release whose compiler is JavaScript: later ones are programs for one platform.
_TYPESCRIPT = NpmPackage(
    name="typescript",
    version="5.9.3",
    sha512="jl1vZzPDinLr9eUt3J/t7V6FgNEw9QjvBPdysz9KfQDD41fQrC2Y4vKQdiaUpFT4bXlb1RHhLpp8wtm6M5TgSw==",
)


def _missing(packages: Iterable[NpmPackage]) -> str:
    """Why the packages are not there; "" if they are."""
    try:
        for package in packages:
            archive_of(package)
    except EdgeError as error:
        return f"{error.message}: {error.hint}"
    return ""


@cache
def missing() -> str:
    """Why the engines' packages are not there; "" if they are."""
    return _missing({file.package for one in ENGINES.values() for file in one.files(tuple(one.builds))})


def need_engines() -> None:
    """Skip the test where the packages are not there and cannot be fetched; CI has to have them."""
    _skip(missing())


def need_typescript() -> Path:
    """Return TypeScript's archive; as in `need_engines` without it."""
    _skip(_missing([_TYPESCRIPT]))
    return archive_of(_TYPESCRIPT)


def _skip(reason: str) -> None:
    if reason:
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
