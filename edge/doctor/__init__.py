"""The checks of `edge doctor`: find what is missing or wrong on a machine, with the command that fixes it.

One file per family of checks. A check is a function that takes a `Snapshot` and yields findings; it yields nothing if
it does not apply (without a Coral there is no finding about Corals). To add a check, add a function and list it in its
file's `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Iterable

from edge.doctor import accelerators, board, cpu, deployment, disk, engines, python, table
from edge.doctor.snapshot import LEVELS, Check, Finding, Snapshot, is_broken, observe, snapshot_of_board

__all__ = [
    "LEVELS",
    "Check",
    "Finding",
    "Snapshot",
    "examine",
    "examine_board",
    "is_broken",
    "observe",
    "snapshot_of_board",
]

_FAMILIES = (python, engines, table, cpu, disk, board, accelerators)
_OF_BOARDS = (cpu, disk, board, deployment, accelerators)  # `edge deploy` installs the rest


def examine(snapshot: Snapshot) -> list[Finding]:
    """Return the findings of all checks, the worst last: right above the prompt."""
    return _sort(one for family in _FAMILIES for check in family.CHECKS for one in check(snapshot))


def examine_board(snapshot: Snapshot) -> list[Finding]:
    """Return the findings about a board that models are deployed to."""
    return _sort(one for family in _OF_BOARDS for check in family.CHECKS for one in check(snapshot))


def _sort(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda one: LEVELS.index(one.level))
