"""Published latencies of known models on an Edge TPU, and what these models consist of.

`edge_tpu_latency.csv` has the median of all sources for each host and model (batch 1, steady state),
`edge_tpu_graphs.csv` the counts of each model. `python -m tests.tools.edge_tpu_graphs` writes both, and names what is
left out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent
# What holds the Edge TPU in most publications: a desktop or laptop with USB 3. Other hosts are compared with it.
DESKTOP = "desktop"
USB_2 = "usb2"


@dataclass(frozen=True, kw_only=True)
class EdgeTpuGraph:
    """A model of which all operators run on the Edge TPU.

    activations: Elements that convolutions and dense layers write.
    parameters: Elements of their weights and biases.
    """

    model: str
    family: str
    macs: int
    activations: int
    parameters: int
    input_bytes: int


@dataclass(frozen=True, kw_only=True)
class EdgeTpuLatency:
    """The median latency of a model, over all sources.

    link: What connects the Edge TPU: "usb2", "usb3" or "pcie".
    host: The device that it is connected to: a profile's id, or "desktop".
    rows: The number of published rows.
    """

    link: str
    host: str
    model: str
    latency_ms: float
    rows: int
    sources: tuple[str, ...]


@cache
def edge_tpu_graphs() -> dict[str, EdgeTpuGraph]:
    """Return every graph by its model's id."""
    with (_FOLDER / "edge_tpu_graphs.csv").open(newline="", encoding="utf-8") as stream:
        return {
            row["model"]: EdgeTpuGraph(
                model=row["model"],
                family=row["family"],
                macs=int(row["macs"]),
                activations=int(row["activations"]),
                parameters=int(row["parameters"]),
                input_bytes=int(row["input_bytes"]),
            )
            for row in csv.DictReader(stream)
        }


@cache
def edge_tpu_latencies() -> tuple[EdgeTpuLatency, ...]:
    """Return every latency, in the order of the file."""
    with (_FOLDER / "edge_tpu_latency.csv").open(newline="", encoding="utf-8") as stream:
        return tuple(
            EdgeTpuLatency(
                link=row["link"],
                host=row["host"],
                model=row["model"],
                latency_ms=float(row["latency_ms"]),
                rows=int(row["rows"]),
                sources=tuple(row["source"].split()),
            )
            for row in csv.DictReader(stream)
        )
