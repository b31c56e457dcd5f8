"""For pytest: `boards` stands boards up and takes them down; a conftest.py imports the ones that its tests name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.boards.debian import CannotStand
from tests.boards.root import Root, get_root
from tests.boards.stand import Board, standing

Boards = Callable[..., Board]

__all__ = ["board_root", "boards", "pi"]


@pytest.fixture(scope="session")
def board_root() -> Root:
    """The board's files; made now, in a minute or two, where the cache folder has none. Skips where they cannot be."""
    try:
        return get_root()
    except CannotStand as why:
        pytest.skip(f"no emulated board: {why}")


@pytest.fixture
def boards(board_root: Root) -> Iterator[Boards]:
    """`boards(face, name=..., ...)` as `standing` takes them: as many as a test wants, up until it ends."""
    with ExitStack() as stack:
        yield lambda *given, **more: _stand(stack, board_root, *given, **more)


@pytest.fixture(scope="session")
def pi(board_root: Root) -> Iterator[Board]:
    """A Raspberry Pi 4 with engines, shared by all tests that leave it as it was."""
    with ExitStack() as stack:
        yield _stand(stack, board_root)


def _stand(stack: ExitStack, root: Root, *given: object, **more: object) -> Board:
    try:
        return stack.enter_context(standing(root, *given, **more))
    except CannotStand as why:
        pytest.skip(f"no emulated board: {why}")
