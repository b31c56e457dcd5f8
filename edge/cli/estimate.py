"""`edge estimate`: latency, energy and memory of a model on a device without having it, from published rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge.benchmark.tables import Column
    from edge.estimation.language_model import LanguageModelEstimate, LanguageModelEstimates
    from edge.estimation.results import Estimate, EstimateReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `edge estimate`."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a TFLite, ONNX or GGUF file, or an artifact")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument(
        "--for",
        dest="device",
        metavar="DEVICE",
        help="the device: raspberry-pi-4, raspberry-pi-4+coral-usb, jetson-agx-orin, ...",
    )
    where.add_argument("--all", action="store_true", help="every device with enough published rows, fastest first")
    parser.add_argument("--precision", metavar="P", help="fp32 or int8 (default: both)")
    parser.add_argument(
        "--memory", metavar="4GB", help="language models: the memory size, if the device is sold with several"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print the estimates."""
    import edge
    from edge.console.text import width
    from edge.estimation.results import EstimateReport

    device = None if args.all else args.device
    found = edge.estimate(args.model, device, precision=args.precision, memory=args.memory)
    if args.json:
        print(json.dumps(found.to_json(), indent=2))
    elif isinstance(found, EstimateReport):
        print(as_text(found, width()))
    else:
        print(format_language_model(found, width()))
    return 0


def format_language_model(report: LanguageModelEstimates, width: int | None = None) -> str:
    """Format a language model for a terminal: a row for each device, and what the band means."""
    from edge.benchmark.tables import NONE, Column, format_aligned
    from edge.console.text import wrap
    from runtimes.llm.llama_cpp.memory import format_bytes

    def fits(one: LanguageModelEstimate) -> str:
        if one.fits is None:
            return "depends on --memory"
        return "yes" if one.fits else f"no; {one.fitting} does" if one.fitting else "no quantization does"

    columns: tuple[Column[LanguageModelEstimate], ...] = (
        Column("Device", lambda one: one.device, is_number=False),
        Column("Bandwidth [GB/s]", lambda one: f"{one.bandwidth_gb_s:g}"),
        Column("Writing [tokens/s]", lambda one: f"{one.write_tok_s:.3g}"),
        Column("90 % band", lambda one: f"{one.low_tok_s:.3g}…{one.high_tok_s:.3g}"),
        Column("Prompt [tokens/s]", lambda one: f"≥ {one.read_tok_s:.3g}"),
        Column("Memory", lambda one: format_bytes(one.memory_bytes)),
        Column("Of", lambda one: NONE if one.device_bytes is None else format_bytes(one.device_bytes)),
        Column("Fits", fits, is_number=False),
    )
    basis = report.basis
    notes = (
        f"estimated, not measured: a token reads all weights, and {basis.rows} published speeds of {report.bits}-bit "
        f"weights on {basis.devices} devices reach {basis.share:.0%} of the memory's bandwidth (median)",
        f"devices that the median does not contain differ by {basis.error:.0%} (median), and the band is "
        f"×{basis.band:.2f}; most of them have a GPU: expect the lower half of the band of a board's CPU",
        "a prompt is read at least as fast as an answer is written; how much faster depends on the processor",
        f"memory: weights, a context of {report.context} tokens, and buffers",
    )
    title = f"{report.model}: {report.parameters / 1e9:.3g} billion parameters, {report.bits}-bit weights"
    lines = "\n".join(wrap(note, width) for note in notes)
    return "\n\n".join((title, format_aligned(columns, report.estimates, width), lines))


def as_text(report: EstimateReport, width: int | None = None) -> str:
    """Format for a terminal: the graph, a row for each device and engine, and what the band means."""
    from edge.benchmark.tables import format_aligned
    from edge.console.text import wrap

    facts, split = report.facts, report.edge_tpu
    graph = (
        f"{report.model}: {facts.macs / 1e6:.1f} million multiply-adds, "
        f"{facts.parameters / 1e6:.2f} million parameters, {facts.layers} layers"
    )
    columns = _columns() if split is None else (*_columns(), _sending())
    table = format_aligned(columns, report.estimates, width)
    notes = "\n".join(wrap(line, width) for line in _notes(report))
    edge_tpu = () if split is None else (wrap(f"with an Edge TPU: {split}", width),)
    return "\n\n".join((graph, *edge_tpu, table, notes))


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


def _sending() -> Column[Estimate]:
    from edge.benchmark.tables import NONE, Column

    return Column("Sending [ms]", lambda one: NONE if one.sending_ms is None else f"{one.sending_ms:.3g}")


def _notes(report: EstimateReport) -> Iterator[str]:
    yield "estimated, not measured: a fit to the published latencies of that many models, whose source `--json` names"
    yield "the engines are those of the publications; newer releases are often faster"
    if report.relative:
        yield f"the graph is a variant of a published one, {report.relative}: error and band are those of such variants"
    else:
        yield "no published model is similar: error and band are those of a family that the fit has not seen"
    if any(one.basis == "outside" for one in report.estimates):
        yield "no band: the model is far larger or smaller than every published one"
    if report.edge_tpu is not None:
        yield "sending: the part of the estimate for parameters that do not fit on the Edge TPU"
    yield "memory: weights and the largest operator, without the engine; energy: at the wall"
