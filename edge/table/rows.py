"""One row of the table, whether published, measured here, or out of this machine's reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from device_profiles.published import PublishedRow
from edge.table.setups import Absent, TableSetup

NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True)
class Row:
    """A row; `kind` is published, measured, absent or failed, and `source` says so in words.

    `time_s` is the wall time of `runs` classifications (measured: the median over rounds; None on an emulated board,
    whose times are none), `score` the top
    class's probability, `raw` the number that a script prints which takes the output as it comes. `data` holds
    what machines read beside these: a row of `edge.bench.rows`, or where a published row comes from.
    """

    id: str
    setup: str
    kind: str
    source: str
    time_s: float | None = None
    runs: int = 0
    top1: str | None = None
    score: float | None = None
    raw: float | None = None
    data: Mapping[str, Any] = field(default_factory=dict)

    @property
    def fps(self) -> float | None:
        """Classifications per second."""
        return self.runs / self.time_s if self.time_s else None

    @property
    def joules(self) -> float | None:
        """Energy of one classification, where it was measured."""
        joules: float | None = self.data.get("energy_per_run_j")
        return None if self.source == "emulated" else joules


def published(row: PublishedRow) -> Row:
    """A published row as it stands in the article; its fps follows from its time, as all ten do."""
    return Row(
        id=row.id,
        setup=row.setup,
        kind="published",
        source=f"published {row.year}",
        time_s=row.time_s,
        runs=row.runs,
        top1=row.top1,
        score=row.probability,
        raw=row.score,
        data={"url": row.source, "runtime": row.runtime, "precision": row.precision, "status": "published"},
    )


def absent(what: Absent) -> Row:
    """A row that says what it would need."""
    return Row(what.id, what.title, "absent", f"needs {what.needs}", data={"status": "absent", "model": what.model})


def of_setup(setup: TableSetup, measured: Mapping[str, Any], trained: bool) -> Row:
    """A row of `edge.bench.rows` as a row of the table; without trained weights no class and no score is shown.

    A setup that crashed, ran out of time or was refused says so; rounds that it finished before are not lost.
    """
    title = setup.full_title
    if measured["status"] != "ok":
        reason = f"{measured['status']}: {measured['message']}"
        return Row(setup.id, title, "failed", reason, data=measured)
    top = next(iter(measured["top"]), None) if trained else None
    return Row(
        id=setup.id,
        setup=title,
        kind="measured",
        source="emulated" if setup.emulated else "measured",
        time_s=None if setup.emulated else measured["total_s"],
        runs=measured["rounds"][0]["runs"],
        top1=top["label"] if top else NOT_EVALUATED,
        score=top["probability"] if top else None,
        raw=measured["raw"] if top else None,
        data=measured,
    )
