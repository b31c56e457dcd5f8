"""Published latencies of known models, and what the graphs of these models consist of.

`latency.csv` holds rows of MLPerf submissions (github.com/mlcommons, one model, single stream, batch 1), `graphs.csv`
the counts of each graph. Both are written by `python -m tests.tools.estimation_tables`.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class PublishedGraph:
    """A graph whose latencies were published: counts by the definitions of `edge.estimation.graph_facts`."""

    model: str
    family: str
    conv_macs: int
    pointwise_macs: int
    depthwise_macs: int
    dense_macs: int
    activations: int
    parameters: int
    layers: int


@dataclass(frozen=True, kw_only=True)
class MeasuredSystem:
    """A device with an engine and a precision, as one submitter measured it.

    processor: "cpu" or "gpu".
    engine_version: Empty if the submission does not say.
    source: The folder of the submission.
    """

    device: str
    processor: str
    engine: str
    engine_version: str
    precision: str
    source: str


@dataclass(frozen=True, kw_only=True)
class PublishedLatency:
    """The median latency of a model on a system; energy of one inference at the wall, if it was measured."""

    system: MeasuredSystem
    model: str
    latency_ms: float
    energy_mj: float | None


@cache
def published_graphs() -> dict[str, PublishedGraph]:
    """Return every graph by its model's id."""
    with (_FOLDER / "graphs.csv").open(newline="", encoding="utf-8") as stream:
        rows = [
            PublishedGraph(
                model=row["model"],
                family=row["family"],
                conv_macs=int(row["conv_macs"]),
                pointwise_macs=int(row["pointwise_macs"]),
                depthwise_macs=int(row["depthwise_macs"]),
                dense_macs=int(row["dense_macs"]),
                activations=int(row["activations"]),
                parameters=int(row["parameters"]),
                layers=int(row["layers"]),
            )
            for row in csv.DictReader(stream)
        ]
    return {row.model: row for row in rows}


@cache
def published_latencies() -> dict[MeasuredSystem, tuple[PublishedLatency, ...]]:
    """Return the rows of each system, in the order of the file."""
    found: dict[MeasuredSystem, list[PublishedLatency]] = {}
    with (_FOLDER / "latency.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            folder = f"https://github.com/mlcommons/{row['edition']}/tree/HEAD/open/{row['submitter']}"
            system = MeasuredSystem(
                device=row["device"],
                processor=row["processor"],
                engine=row["engine"],
                engine_version=row["engine_version"],
                precision=row["precision"],
                source=f"{folder}/results/{row['system']}",
            )
            energy = float(row["energy_mj"]) if row["energy_mj"] else None
            latency = PublishedLatency(
                system=system, model=row["model"], latency_ms=float(row["latency_ms"]), energy_mj=energy
            )
            found.setdefault(system, []).append(latency)
    return {system: tuple(rows) for system, rows in found.items()}
