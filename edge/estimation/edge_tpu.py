"""Estimate the latency of a model on an Edge TPU: the same chip everywhere, behind different hosts and links.

A latency is the sum of what multiply-adds, written elements, parameters on the chip, parameters that are sent to it,
and the inference itself cost behind a desktop's USB 3, times a factor for the host. The transfer of inputs and outputs
is part of the last cost, because those of all published models are of about the same size. Behind USB 2, sending costs
16 times as much and everything else less, so that no such factor exists.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median

from converters.edgetpu.memory import USABLE_BYTES
from device_profiles.published.edge_tpu import (
    DESKTOP,
    USB_2,
    EdgeTpuGraph,
    EdgeTpuLatency,
    edge_tpu_graphs,
    edge_tpu_latencies,
)
from edge.estimation.edge_tpu_split import EdgeTpuSplit
from edge.estimation.regression import FEWEST_FOR_BAND, Fit, KnownLatency, band, median_error
from edge.estimation.results import Estimate
from edge.machine.this_machine import load_profile
from runtimes.errors import RefusedError

FORMAT = "edgetpu"
PRECISION = "int8"
_STICK = "coral-usb"
# The devices of `edge estimate --all` that have an Edge TPU.
DEVICES = (_STICK, f"raspberry-pi-4+{_STICK}", "coral-dev-board")
# A factor is the median of as many ratios as a host and the desktop have models in common.
FEWEST_IN_COMMON = 3
# A model is a published one if its counts differ by less than this.
_SAME = 0.01
# Outside of the measured range by more than this factor, the error is unknown.
_BEYOND = 1.5


@dataclass(frozen=True, kw_only=True)
class EdgeTpuFit:
    """The costs behind a desktop's USB 3, the factors of hosts, and the errors.

    model_errors, family_errors: The logarithm of true / estimated for each row, fitted without its model or family.
    """

    rows: Sequence[EdgeTpuLatency]
    fit: Fit
    factors: Mapping[str, float]
    model_errors: Sequence[float]
    family_errors: Sequence[float]

    @property
    def models(self) -> int:
        """The number of models in the fit."""
        return len({row.model for row in self.rows})

    def latency_ms(self, host: str, features: Sequence[float]) -> float:
        """Return the estimated latency behind a host."""
        return self.factors[host] * self.fit.latency_ms(features)


def features_of_graph(graph: EdgeTpuGraph) -> tuple[float, ...]:
    """Return what a latency is fitted to, for a published model."""
    kept = min(graph.parameters, USABLE_BYTES)
    return _features(graph.macs, graph.activations, kept, graph.parameters - kept)


def _features(macs: int, activations: int, kept: int, sent: int, inferences: int = 1) -> tuple[float, ...]:
    return (macs, activations, kept, sent, inferences)


@cache
def fit_edge_tpu() -> EdgeTpuFit:
    """Fit the published latencies, but for those behind USB 2 and of hosts with too few models."""
    in_common = {host: len(_ratios(edge_tpu_latencies(), host)) for host in {row.host for row in edge_tpu_latencies()}}
    rows = [row for row in edge_tpu_latencies() if row.link != USB_2 and in_common[row.host] >= FEWEST_IN_COMMON]
    fit, factors = fit_rows(rows)
    return EdgeTpuFit(
        rows=rows,
        fit=fit,
        factors=factors,
        model_errors=errors_without(rows, [row.model for row in rows]),
        family_errors=errors_without(rows, [edge_tpu_graphs()[row.model].family for row in rows]),
    )


def _ratios(rows: Sequence[EdgeTpuLatency], host: str) -> list[float]:
    """Return how many times as long as behind a desktop each model takes that was measured behind both."""
    desktop = {row.model: row.latency_ms for row in rows if row.host == DESKTOP}
    return [row.latency_ms / desktop[row.model] for row in rows if row.host == host and row.model in desktop]


def fit_rows(rows: Sequence[EdgeTpuLatency]) -> tuple[Fit, dict[str, float]]:
    """Fit the costs behind a desktop, and return them with the factor of each host."""
    graphs = edge_tpu_graphs()
    factors = {host: median(_ratios(rows, host)) for host in dict.fromkeys(row.host for row in rows)}
    samples = [
        KnownLatency(
            family=graphs[row.model].family,
            features=features_of_graph(graphs[row.model]),
            latency_ms=row.latency_ms / factors[row.host],
        )
        for row in rows
    ]
    return Fit(samples), factors


def errors_without(rows: Sequence[EdgeTpuLatency], keys: Sequence[str]) -> list[float]:
    """Return the error of each row when all rows with its key are left out, also of the factors."""
    errors: dict[int, float] = {}
    for left in dict.fromkeys(keys):
        fit, factors = fit_rows([row for row, key in zip(rows, keys, strict=True) if key != left])
        for place, row in enumerate(rows):
            if keys[place] == left:
                estimated = factors[row.host] * fit.latency_ms(features_of_graph(edge_tpu_graphs()[row.model]))
                errors[place] = math.log(row.latency_ms / estimated)
    return [errors[place] for place in range(len(rows))]


def has_edge_tpu(device: str) -> bool:
    """Return whether a device or setup has an Edge TPU. Raises UsageError for an unknown one."""
    return load_profile(device).takes(FORMAT) is not None


def published_model(split: EdgeTpuSplit) -> str | None:
    """Return the published model with these counts, or None."""
    for graph in edge_tpu_graphs().values():
        ratios = (split.macs / graph.macs, split.activations / graph.activations)
        if all(abs(ratio - 1) < _SAME for ratio in ratios):
            return graph.model
    return None


def estimate_edge_tpu(split: EdgeTpuSplit, device: str) -> Estimate:
    """Estimate a model on a device with an Edge TPU. Raises RefusedError if too little was published about its host."""
    fit, host = fit_edge_tpu(), _host(device, split)
    latency = fit.latency_ms(host, _features(split.macs, split.activations, split.kept_bytes, split.sent_bytes))
    is_published = published_model(split) is not None
    errors = fit.model_errors if is_published else fit.family_errors
    width = None if _is_outside(split) else band(errors)
    return Estimate(
        device=device,
        processor=FORMAT,
        engine=FORMAT,
        engine_version="",
        precision=PRECISION,
        latency_ms=latency,
        low_ms=None if width is None else latency / width,
        high_ms=None if width is None else latency * width,
        fps=1000 / latency,
        energy_mj=None,
        memory_bytes=split.kept_bytes + split.sent_bytes,
        basis="outside" if width is None else "variant" if is_published else "new family",
        error=None if width is None else median_error(errors),
        models=fit.models,
        sending_ms=fit.latency_ms(host, _features(0, 0, 0, split.sent_bytes, inferences=0)),
        source=_main_source(fit.rows, host),
    )


def _main_source(rows: Sequence[EdgeTpuLatency], host: str) -> str:
    """Return the source of most latencies behind a host; the table names all of them."""
    counts = Counter(source for row in rows if row.host == host for source in row.sources)
    return counts.most_common(1)[0][0]


def _is_outside(split: EdgeTpuSplit) -> bool:
    """Return whether the model has far more work, far less, or far larger tensors than all published ones."""
    graphs = edge_tpu_graphs().values()
    macs = [graph.macs for graph in graphs]
    largest = max(graph.input_bytes for graph in graphs)
    return (
        not min(macs) / _BEYOND <= split.macs <= max(macs) * _BEYOND
        or split.input_bytes + split.output_bytes > largest * _BEYOND
    )


def _host(device: str, split: EdgeTpuSplit) -> str:
    """Return the host in the published rows: that of the setup, or a desktop for a bare USB stick or a computer.

    Raises RefusedError if no estimate is possible for it, or for a model of which a part runs on its CPU.
    """
    parts = [part.strip() for part in device.split("+")]
    holder = "+".join(part for part in parts if part != _STICK)
    host = DESKTOP if _STICK in parts and _is_desktop(holder) else holder
    rows = [row for row in edge_tpu_latencies() if row.host == host]
    if split.on_cpu:
        raise RefusedError(
            f"no estimate for {device}: {len(split.on_cpu)} operators would run on the CPU, whose time is not known",
            f"what is known: {split}",
        )
    if host in fit_edge_tpu().factors:
        return host
    if any(row.link == USB_2 for row in rows):
        why = f"it needs {FEWEST_FOR_BAND} published models behind USB 2, and edge knows {len(rows)}"
    else:
        why = f"it needs {FEWEST_IN_COMMON} published models behind this host, and edge knows {len(rows)}"
    raise RefusedError(
        f"no estimate for {device}: {why}",
        f"what is known: {split}; estimates with an Edge TPU are possible for: {', '.join(DEVICES)}",
    )


def _is_desktop(holder: str) -> bool:
    return not holder or load_profile(holder).kind == "computer"
