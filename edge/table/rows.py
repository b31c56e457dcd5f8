"""The rows of the table: published, measured, or not measurable on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

from device_profiles.published import PublishedRow
from edge.benchmark.rows import Row
from edge.estimation.results import Estimate
from edge.table.agreement import TableAgreement
from edge.table.compare_outputs import OutputDiff
from edge.table.setups import AbsentSetup, TableSetup
from runtimes.artifact.json_fields import JsonObject, to_json

NOT_EVALUATED = "not evaluated"


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the table.

    id, setup: The setup's id and title.
    kind: "published", "measured", "estimated", "absent" or "failed".
    source: The kind in words, with the reason for an absent or failed row.
    time_s: The wall time of `runs` classifications; measured rows have the median over the rounds. None on an emulated
        board, whose times are meaningless.
    top1: The name of the top class.
    score: Its probability.
    raw: The number that a script prints if it does not decode the output.
    measured: The row of the benchmark; None for published and absent rows.
    published: The origin of a published row.
    estimate: That of an estimated row.
    model: The recipe of a model that could not be built.
    agreement: The comparison of its predictions with float Keras'.
    beside_here: The comparison of a board's outputs with this machine's.
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
    measured: Row | None = None
    published: PublishedRow | None = None
    estimate: Estimate | None = None
    model: str | None = None
    agreement: TableAgreement | None = None
    beside_here: OutputDiff | None = None

    @property
    def fps(self) -> float | None:
        """Classifications per second."""
        return self.runs / self.time_s if self.time_s else None

    @property
    def joules(self) -> float | None:
        """The energy of one classification; None if it was not measured."""
        return self.measured.energy_per_run_j if self.measured and self.source != "emulated" else None

    def to_json(self) -> JsonObject:
        """Return the keys of `edge bench --json`, plus those of the table."""
        measured = (self.measured or Row(setup=self.id, status=self.kind)).to_json()
        if self.measured is None:
            for key in ("title", "host", "error", "message", "hint"):
                del measured[key]
        return {
            **measured,
            **self._origin(),
            "setup": self.setup,
            "id": self.id,
            "kind": self.kind,
            "source": self.source,
            "time_s": self.time_s,
            "fps": self.fps,
            "top1": self.top1,
            "score": self.score,
            "raw": self.raw,
        }

    def _origin(self) -> JsonObject:
        if self.published is not None:
            origin = self.published
            return {"url": origin.source, "runtime": origin.runtime, "precision": origin.precision}
        if self.estimate is not None:
            one = self.estimate
            return {"url": one.source, "runtime": one.engine, "precision": one.precision, "estimate": to_json(one)}
        if self.measured is None:
            return {"model": self.model}
        return {
            "agreement": to_json(self.agreement) if self.agreement else None,
            "beside_here": to_json(self.beside_here) if self.beside_here else None,
        }


def row_of_published(row: PublishedRow) -> TableRow:
    """Convert a published row. Its fps is computed from its time, which agrees with the article for all ten rows."""
    return TableRow(
        id=row.id,
        setup=row.setup,
        kind="published",
        source=f"published {row.year}",
        time_s=row.time_s,
        runs=row.runs,
        top1=row.top1,
        score=row.probability,
        raw=row.score,
        published=row,
    )


def row_of_absent(what: AbsentSetup) -> TableRow:
    """Return a row that states what the setup would need."""
    return TableRow(id=what.id, setup=what.title, kind="absent", source=f"needs {what.needs}", model=what.model)


def row_of_setup(
    setup: TableSetup,
    measured: Row,
    trained: bool,
    agreement: TableAgreement | None = None,
    beside_here: OutputDiff | None = None,
) -> TableRow:
    """Convert a row of the benchmark. Without trained weights it has no class and no score.

    The row of a setup that failed states the reason, and keeps the rounds that were measured before the failure.
    """
    row = TableRow(
        id=setup.id,
        setup=setup.full_title,
        kind="failed",
        source=f"{measured.status}: {measured.message}",
        measured=measured,
        agreement=agreement,
        beside_here=beside_here,
    )
    if not measured.is_ok:
        return row
    top = next(iter(measured.top), None) if trained else None
    return replace(
        row,
        kind="measured",
        source="emulated" if setup.emulated else "measured",
        time_s=None if setup.emulated else measured.total_s,
        runs=measured.rounds[0].runs,
        top1=(top["label"] if top else NOT_EVALUATED),
        score=top["probability"] if top else None,
        raw=measured.raw if top else None,
    )
