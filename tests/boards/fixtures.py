"""pytest fixtures that start and stop boards; a conftest.py imports those that its tests use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NoReturn

import pytest

from tests.boards.debian import CannotStand
from tests.boards.root import Root, get_root
from tests.boards.stand import Board, standing

Boards = Callable[..., Board]

__all__ = ["board_root", "boards", "pi"]


@pytest.fixture(scope="session")
def board_root() -> Root:
    """The board's files, created in a minute or two unless cached; skips the tests if that is impossible."""
    try:
        return get_root()
    except CannotStand as why:
        _without(why)


@pytest.fixture
def boards(board_root: Root) -> Iterator[Boards]:
    """`boards(face, name=..., ...)` as `standing` takes them: as many as a test wants, up until it ends."""
    with ExitStack() as stack:
        yield lambda *given, **more: _stand(stack, board_root, *given, **more)


@pytest.fixture(scope="session")
def pi(board_root: Root) -> Iterator[Board]:
    """A Raspberry Pi 4 with engines, shared by all tests that do not change it."""
    with ExitStack() as stack:
        yield _stand(stack, board_root)


def _stand(stack: ExitStack, root: Root, *given: object, **more: object) -> Board:
    try:
        return stack.enter_context(standing(root, *given, **more))
    except CannotStand as why:
        _without(why)


def _without(why: CannotStand) -> NoReturn:
    """Skip the test; fail if CI is set, because CI must test everything."""
    if os.environ.get("CI"):
        pytest.fail(f"CI has to have an emulated board: {why}")
    pytest.skip(f"no emulated board: {why}")
