"""Published benchmark tables as data: the measurements, the meaning of their scores, and how to reproduce them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from device_profiles.facts import PRECISIONS
from device_profiles.profiles import UnknownProfileError
from device_profiles.reader import TomlTable, read_toml, suggestion

SCORE_KINDS = ("softmax-float32", "softmax-uint8", "logit")

_FILE = Path(__file__).parent / "mobilenet_v2_2019.toml"


@dataclass(frozen=True, kw_only=True)
class PublishedRow:
    """A row of a published table.

    profile: The id of the setup.
    runtime: Our id of the engine.
    time_s: The wall time of `runs` classifications of one picture.
    fps: runs / time, as published.
    score: The published score.
    score_kind: The kind of score.
    probability: The score as a probability, or None if it cannot be converted.
    how: The commands that reproduce the row on that hardware; lines that start with `#` are comments.
    """

    id: str
    setup: str
    profile: str
    runtime: str
    precision: str
    runs: int
    time_s: float
    fps: float
    top1: str
    score: float
    score_kind: str
    probability: float | None
    year: int
    source: str
    how: str


@dataclass(frozen=True, kw_only=True)
class PublishedTable:
    """A published table; `score_kinds` explains each kind of score, `protocol` how times were measured."""

    title: str
    year: int
    source: str
    protocol: str
    score_kinds: dict[str, str]
    rows: tuple[PublishedRow, ...]


@cache
def published_table() -> PublishedTable:
    """Return the MobileNetV2 table of 2019, in the order of the article."""
    return read_toml(_FILE, _table)


def published_rows() -> list[PublishedRow]:
    """Return the ten rows of `published_table`."""
    return list(published_table().rows)


def published_row(name: str) -> PublishedRow:
    """Return the row whose id or setup is `name`, ignoring case. Raises `UnknownProfileError` if there is none."""
    rows = published_rows()
    for row in rows:
        if name.strip().lower() in (row.id, row.setup.lower()):
            return row
    raise UnknownProfileError(f"no published setup is called '{name}'", suggestion(name, [row.id for row in rows]))


def _table(table: TomlTable) -> PublishedTable:
    year, source = table.require("year", int), table.text("source")
    top1, runs, not_tried = table.text("top1"), table.require("runs", int), table.text("not_tried")

    def row(values: TomlTable) -> PublishedRow:
        return PublishedRow(
            id=values.text("id"),
            setup=values.text("setup"),
            profile=values.text("profile"),
            runtime=values.text("runtime"),
            precision=values.word("precision", PRECISIONS),
            runs=runs,
            time_s=values.require("time_s", float),
            fps=values.require("fps", float),
            top1=top1,
            score=values.require("score", float),
            score_kind=values.word("score_kind", SCORE_KINDS),
            probability=values.find("probability", float),
            year=year,
            source=source,
            how=f"# {not_tried}\n{values.text('how')}",
        )

    return PublishedTable(
        title=table.text("title"),
        year=year,
        source=source,
        protocol=table.text("protocol"),
        score_kinds=table.group("score_kinds", _score_kinds) or {},
        rows=table.groups("rows", row),
    )


def _score_kinds(table: TomlTable) -> dict[str, str]:
    return {kind: table.text(kind) for kind in SCORE_KINDS}
