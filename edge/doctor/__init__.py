"""What is missing or wrong on this machine, each with the command that mends it: the content of `edge doctor`.

One file per family of checks. A check is a function that looks at a `Situation` and yields findings; what it
does not find worth telling (no Coral, no finding about Corals) it passes over. Adding a check is adding a
function and naming it in its file's `CHECKS`.
"""

from __future__ import annotations

from edge.doctor import attached, cpu, engines, flavours, python, space, table
from edge.doctor.finding import LEVELS, Check, Finding, is_broken
from edge.doctor.situation import Situation, observe

__all__ = ["LEVELS", "Check", "Finding", "Situation", "examine", "is_broken", "observe"]

_FAMILIES = (python, engines, flavours, table, cpu, space, attached)


def examine(situation: Situation) -> list[Finding]:
    """All findings of all checks, the worst last, so that they stand right above the prompt."""
    findings = [one for family in _FAMILIES for check in family.CHECKS for one in check(situation)]
    return sorted(findings, key=lambda one: LEVELS.index(one.level))
