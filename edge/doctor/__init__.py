"""What is missing or wrong on this machine, each with the command that mends it: the content of `edge doctor`.

One file per family of checks. A check is a function that looks at a `Situation` and yields findings; what it
does not find worth telling (no Coral, no finding about Corals) it passes over. Adding a check is adding a
function and naming it in its file's `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge.doctor import attached, board, cpu, engines, flavours, python, space, table
from edge.doctor.finding import LEVELS, Check, Finding, is_broken
from edge.doctor.situation import Situation, observe, of_board

__all__ = ["LEVELS", "Check", "Finding", "Situation", "examine", "examine_board", "is_broken", "observe", "of_board"]

_FAMILIES = (python, engines, flavours, table, cpu, space, board, attached)
_OF_BOARDS = (cpu, space, board, attached)  # what `edge deploy` brings to a board is not the board's to mend


def examine(situation: Situation) -> list[Finding]:
    """All findings of all checks, the worst last, so that they stand right above the prompt."""
    return _sorted(one for family in _FAMILIES for check in family.CHECKS for one in check(situation))


def examine_board(situation: Situation) -> list[Finding]:
    """The findings about a machine that models are deployed to."""
    return _sorted(one for family in _OF_BOARDS for check in family.CHECKS for one in check(situation))


def _sorted(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: LEVELS.index(one.level))
