"""The boards."""

from tests.boards.fixtures import board_root, boards, pi

__all__ = ["board_root", "boards", "pi"]
