"""What a check says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal

from edge.doctor.situation import Situation

Level = Literal["ok", "note", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """`what` was found, `why` it matters, and the command or the act that mends it: one line each.

    ok        looked at and fine; `why` and `fix` are empty
    note      a fact of this machine to know of; nothing to repair
    warning   something works worse than it could, or measurements suffer
    error     something that is installed or attached does not work
    """

    level: Level
    what: str
    why: str = ""
    fix: str = ""

    def as_dict(self) -> dict[str, str]:
        """As machines read it."""
        return asdict(self)


Check = Callable[[Situation], Iterator[Finding]]


def is_broken(findings: Iterable[Finding]) -> bool:
    """Whether any finding is an error."""
    return any(one.level == "error" for one in findings)
