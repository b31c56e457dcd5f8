"""`edge estimate`: latency, energy and memory of a model on a device without having it, from published rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.benchmark.tables import Column
    from edge.estimation.estimate import Estimate, EstimateReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge estimate`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a TFLite or ONNX file, or an artifact with one")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--for", dest="device", metavar="DEVICE", help="the device: raspberry-pi-4, jetson-agx-orin, ..."
    )
    where.add_argument("--all", action="store_true", help="every device with enough published rows, fastest first")
    parser.add_argument("--precision", metavar="P", help="fp32 or int8 (default: both)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the estimates."""
    import edge
    from edge.console.text import width

    found = edge.estimate(args.model, None if args.all else args.device, precision=args.precision)
    print(json.dumps(found.to_json(), indent=2) if args.json else as_text(found, width()))
    return 0


def as_text(report: EstimateReport, width: int | None = None) -> str:
    """Format for a terminal: the graph, a row for each device and engine, and what the band means."""
    from edge.benchmark.tables import aligned
    from edge.console.text import wrapped

    facts = report.facts
    graph = (
        f"{report.model}: {facts.macs / 1e6:.1f} million multiply-adds, "
        f"{facts.parameters / 1e6:.2f} million parameters, {facts.layers} layers"
    )
    table = aligned(_columns(), report.estimates, width)
    notes = "\n".join(wrapped(line, width) for line in _notes(report))
    return "\n\n".join((graph, table, notes))


def _columns() -> tuple[Column[Estimate], ...]:
    from edge.benchmark.tables import NONE, Column

    def band(one: Estimate) -> str:
        return NONE if one.low_ms is None else f"{one.low_ms:.4g}…{one.high_ms:.4g}"

    return (
        Column("Device", lambda one: one.device, is_number=False),
        Column("Engine", lambda one: f"{one.engine} {one.engine_version}".strip(), is_number=False),
        Column("Processor", lambda one: one.processor, is_number=False),
        Column("Precision", lambda one: one.precision, is_number=False),
        Column("Estimate [ms]", lambda one: f"{one.latency_ms:.4g}"),
        Column("90 % band", band),
        Column("fps", lambda one: f"{one.fps:.4g}"),
        Column("Energy [mJ]", lambda one: NONE if one.energy_mj is None else f"{one.energy_mj:.3g}"),
        Column("Memory [MB]", lambda one: f"{one.memory_bytes / 1e6:.1f}"),
        Column("Models", lambda one: str(one.models)),
        Column("Median error", lambda one: NONE if one.error is None else f"{one.error:.0%}"),
    )


def _notes(report: EstimateReport) -> Iterator[str]:
    yield "estimated, not measured: a fit to the published latencies of that many models, whose source `--json` names"
    yield "the engines are those of the publications; newer releases are often faster"
    if report.relative:
        yield f"the graph is a variant of a published one, {report.relative}: error and band are those of such variants"
    else:
        yield "no published model is similar: error and band are those of a family that the fit has not seen"
    if any(one.basis == "outside" for one in report.estimates):
        yield "no band: the model is far larger or smaller than every published one"
    yield "memory: weights and the largest operator, without the engine; energy: at the wall"
