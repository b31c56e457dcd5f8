"""The estimated rows of the table: what `edge estimate` says of each published setup, from rows that others published.

Each follows its published row, which shows the error of the estimate. A setup whose device has too
few published rows, or rows that the fit does not explain, has no estimate, and its row says so.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields

from device_profiles.published import PublishedRow
from device_profiles.published.edge_tpu import edge_tpu_graphs
from device_profiles.published.latency import published_graphs
from edge.estimation.edge_tpu import FORMAT as EDGE_TPU
from edge.estimation.edge_tpu import estimate_edge_tpu
from edge.estimation.edge_tpu_split import EdgeTpuSplit
from edge.estimation.estimate import estimate_graph
from edge.estimation.graph_facts import GraphFacts
from edge.estimation.results import Estimate
from edge.table.rows import TableRow
from runtimes.errors import RefusedError

_MODEL = "mobilenet-v2-1.0-224"
# The elements that its largest operator, a depthwise convolution with stride 2, reads and writes.
_STEP_ELEMENTS = 112 * 112 * 96 + 56 * 56 * 96
_OPERATORS, _CLASSES = 66, 1001  # of Google's file for the Edge TPU


def with_estimates(rows: Sequence[TableRow]) -> list[TableRow]:
    """Return the rows, with an estimated row after each published one."""
    return list(_with_estimates(rows))


def _with_estimates(rows: Sequence[TableRow]) -> Iterator[TableRow]:
    for row in rows:
        yield row
        if row.published is not None:
            yield estimate_published(row.published)


def estimate_published(published: PublishedRow) -> TableRow:
    """Return the estimate of a published setup in its precision, or the reason why there is none."""
    name = f"{published.setup}, estimated"
    try:
        if published.runtime == EDGE_TPU:
            return _row(name, published, estimate_edge_tpu(_split(), published.profile))
        found = estimate_graph(_MODEL, _facts(), published.profile, published.precision)
    except RefusedError as error:
        return TableRow(id=f"{published.id}-estimated", setup=name, kind="absent", source=error.message)
    # Of the engine that the setup has, if rows of it were published, else of the fastest.
    same = [one for one in found.estimates if one.engine == published.runtime]
    return _row(name, published, (same or list(found.estimates))[0])


def _row(name: str, published: PublishedRow, one: Estimate) -> TableRow:
    scale = published.runs / 1000
    band = (
        "" if one.low_ms is None or one.high_ms is None else f", {one.low_ms * scale:.2f}…{one.high_ms * scale:.2f} s"
    )
    return TableRow(
        id=f"{published.id}-estimated",
        setup=name,
        kind="estimated",
        source=f"estimated{band}",
        time_s=one.latency_ms * scale,
        runs=published.runs,
        estimate=one,
    )


def _facts() -> GraphFacts:
    graph = published_graphs()[_MODEL]
    counts = {one.name: getattr(graph, one.name) for one in fields(graph) if one.name not in ("model", "family")}
    return GraphFacts(**counts, largest_step=_STEP_ELEMENTS)


def _split() -> EdgeTpuSplit:
    """Return the parts of the model, all of which runs on the Edge TPU."""
    graph = edge_tpu_graphs()[_MODEL]
    return EdgeTpuSplit(
        operators=_OPERATORS,
        mapped=_OPERATORS,
        on_cpu=(),
        macs=graph.macs,
        activations=graph.activations,
        kept_bytes=graph.parameters,
        sent_bytes=0,
        input_bytes=graph.input_bytes,
        output_bytes=_CLASSES,
    )
