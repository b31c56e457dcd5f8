"""Estimate latency, energy and memory of a model on devices for which enough rows were published.

Each system (a device with an engine and a precision) is a fit of its own. A system whose errors are too large is not
shown: see `estimable`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from statistics import median

from device_profiles.published.latency import (
    MeasuredSystem,
    PublishedGraph,
    PublishedLatency,
    published_graphs,
    published_latencies,
)
from edge.estimation.edge_tpu import DEVICES as EDGE_TPU_DEVICES
from edge.estimation.edge_tpu import PRECISION as EDGE_TPU_PRECISION
from edge.estimation.edge_tpu import estimate_edge_tpu, has_edge_tpu, published_model
from edge.estimation.edge_tpu_split import split_for_edge_tpu
from edge.estimation.graph_facts import GraphFacts, count_graph
from edge.estimation.regression import FEWEST_FOR_BAND, Fit, KnownLatency, band, median_error
from edge.estimation.results import Estimate, EstimateReport
from edge.machine.this_machine import load_profile
from runtimes.errors import RefusedError, UsageError

PRECISIONS = ("fp32", "int8")
# A system is shown if its median errors are at most these, with one model and with a whole family left out.
MAX_MODEL_ERROR, MAX_FAMILY_ERROR = 0.15, 0.30
# The errors for a model this similar to a published one are those of variants of published families.
_RELATIVE = 0.02
# Outside of the measured range by more than this factor, the error is unknown.
_BEYOND = 1.5
_FEWEST_ENERGIES = 10
_BYTES = {"fp32": 4, "int8": 1}
Facts = GraphFacts | PublishedGraph


@dataclass(frozen=True, kw_only=True)
class SystemFit:
    """A system's fit and its errors.

    models: The number of models in the fit.
    model_error, family_error: The median relative errors with one model, and with a whole family, left out.
    model_band, family_band: The factors within which 90 % of those errors lie.
    power_w: The median power during an inference, at the wall; None if too few rows have it.
    """

    system: MeasuredSystem
    fit: Fit
    models: int
    model_error: float
    family_error: float
    model_band: float
    family_band: float
    power_w: float | None


def estimate_model(model: Path, device: str | None, precision: str | None) -> EstimateReport:
    """Estimate a model for a device, or for all; None as precision estimates each that was published.

    Raises RefusedError if too few rows were published for the device.
    """
    if precision is not None and precision not in PRECISIONS:
        raise UsageError(f"no estimates for the precision '{precision}'", f"choose one of: {', '.join(PRECISIONS)}")
    facts = count_graph(model)
    if device is None:
        return _with_edge_tpus(estimate_graph(model.name, facts, None, precision), model, precision)
    if device in _measured_devices() or not has_edge_tpu(device):
        return estimate_graph(model.name, facts, device, precision)
    if precision not in (None, EDGE_TPU_PRECISION):
        raise UsageError(f"an Edge TPU does not compute in {precision}", f"use --precision {EDGE_TPU_PRECISION}")
    split = split_for_edge_tpu(model)
    return EstimateReport(
        model=model.name,
        facts=facts,
        relative=published_model(split),
        estimates=[estimate_edge_tpu(split, device)],
        edge_tpu=split,
    )


def estimate_graph(model: str, facts: GraphFacts, device: str | None, precision: str | None) -> EstimateReport:
    """Estimate a graph of that name on the processors of a device, or of all, as `estimate_model` does."""
    chosen = [
        one
        for one in newest(system_fits())
        if device in (None, one.system.device) and precision in (None, one.system.precision)
    ]
    if not chosen:
        raise _no_estimate(device, precision)
    near = nearest(facts)
    found = sorted((_estimate(facts, one, near is not None) for one in chosen), key=_latency)
    return EstimateReport(model=model, facts=facts, relative=near, estimates=found)


def _with_edge_tpus(report: EstimateReport, model: Path, precision: str | None) -> EstimateReport:
    """Add the devices with an Edge TPU, if it is known what the model would do there."""
    if precision not in (None, EDGE_TPU_PRECISION):
        return report
    try:
        split = split_for_edge_tpu(model)
        found = [estimate_edge_tpu(split, device) for device in EDGE_TPU_DEVICES]
    except RefusedError:
        return report
    return replace(report, estimates=sorted([*report.estimates, *found], key=_latency), edge_tpu=split)


def _latency(one: Estimate) -> float:
    return one.latency_ms


def devices() -> list[str]:
    """Return the devices that an estimate is possible for."""
    return [*dict.fromkeys(one.system.device for one in system_fits()), *EDGE_TPU_DEVICES]


def _measured_devices() -> set[str]:
    return {system.device for system in published_latencies()}


@cache
def system_fits() -> tuple[SystemFit, ...]:
    """Return the fit of every system whose errors are small enough."""
    found = (fit_system(system, rows) for system, rows in published_latencies().items())
    return tuple(one for one in found if one is not None and estimable(one))


def estimable(one: SystemFit) -> bool:
    """Return whether a system's errors are small enough to show its estimates."""
    return one.model_error <= MAX_MODEL_ERROR and one.family_error <= MAX_FAMILY_ERROR


def fit_system(system: MeasuredSystem, rows: Sequence[PublishedLatency]) -> SystemFit | None:
    """Fit a system; None if it has too few models, or models of only one family."""
    graphs = published_graphs()
    samples = [
        KnownLatency(family=graphs[row.model].family, features=features(graphs[row.model]), latency_ms=row.latency_ms)
        for row in rows
    ]
    if len(samples) < FEWEST_FOR_BAND or len({one.family for one in samples}) < 2:
        return None
    fit = Fit(samples)
    model_band, family_band = band(fit.model_errors), band(fit.family_errors)
    assert model_band is not None
    assert family_band is not None
    powers = [row.energy_mj / row.latency_ms for row in rows if row.energy_mj is not None]
    return SystemFit(
        system=system,
        fit=fit,
        models=len(samples),
        model_error=median_error(fit.model_errors),
        family_error=median_error(fit.family_errors),
        model_band=model_band,
        family_band=max(family_band, model_band),
        power_w=median(powers) if len(powers) >= _FEWEST_ENERGIES else None,
    )


def newest(found: Sequence[SystemFit]) -> Iterator[SystemFit]:
    """Yield one fit for each device, processor, engine and precision: the newest engine's, then the best."""
    best: dict[tuple[str, ...], SystemFit] = {}
    for one in found:
        system = one.system
        key = (system.device, system.processor, system.engine, system.precision)
        if key not in best or _age(one) > _age(best[key]):
            best[key] = one
    yield from best.values()


def _age(one: SystemFit) -> tuple[list[int], float]:
    version = [int(part) for part in one.system.engine_version.split(".") if part.isdigit()]
    return version, -one.family_error


def features(facts: Facts) -> tuple[float, ...]:
    """Return the quantities that a latency is fitted to; the last one is the fixed cost of any inference."""
    return (
        facts.conv_macs,
        facts.pointwise_macs,
        facts.depthwise_macs,
        facts.dense_macs,
        facts.activations,
        facts.parameters,
        facts.layers,
        1.0,
    )


def nearest(facts: Facts) -> str | None:
    """Return the published model that the graph is a variant of, or None."""
    shape = _shape(facts)
    near = min(published_graphs().values(), key=lambda graph: math.dist(shape, _shape(graph)))
    return near.model if math.dist(shape, _shape(near)) <= _RELATIVE else None


def _shape(facts: Facts) -> tuple[float, ...]:
    """Return what variants of a family have in common, whatever their width and resolution."""
    macs = facts.conv_macs + facts.pointwise_macs + facts.depthwise_macs + facts.dense_macs
    return (
        facts.conv_macs / macs,
        facts.depthwise_macs / macs,
        math.log10(macs / facts.activations) / 2,
        math.log10(facts.layers),
    )


def _estimate(facts: GraphFacts, one: SystemFit, is_variant: bool) -> Estimate:
    latency = one.fit.latency_ms(features(facts))
    measured = [sum(sample.features[:4]) for sample in one.fit.samples]
    is_outside = not min(measured) / _BEYOND <= facts.macs <= max(measured) * _BEYOND
    width = None if is_outside else one.model_band if is_variant else one.family_band
    size = _BYTES[one.system.precision]
    return Estimate(
        device=one.system.device,
        processor=one.system.processor,
        engine=one.system.engine,
        engine_version=one.system.engine_version,
        precision=one.system.precision,
        latency_ms=latency,
        low_ms=None if width is None else latency / width,
        high_ms=None if width is None else latency * width,
        fps=1000 / latency,
        energy_mj=None if one.power_w is None else one.power_w * latency,
        memory_bytes=size * (facts.parameters + facts.largest_step),
        basis="outside" if is_outside else "variant" if is_variant else "new family",
        error=None if is_outside else one.model_error if is_variant else one.family_error,
        models=one.models,
        source=one.system.source,
    )


def _no_estimate(device: str | None, precision: str | None) -> RefusedError:
    if device is None or device in devices():
        return RefusedError(
            f"the published rows of {device or 'all devices'} do not suffice for an estimate in {precision}",
            "leave out --precision to see those that do",
        )
    if device not in _measured_devices():
        load_profile(device)  # raises UsageError if there is no such device
    systems = [rows for system, rows in published_latencies().items() if system.device == device]
    rows = max((len(rows) for rows in systems), default=0)
    why = (
        f"the errors of its {rows} published models are too large"
        if rows >= FEWEST_FOR_BAND
        else f"edge knows the latencies of {rows} published models there, and needs {FEWEST_FOR_BAND}"
    )
    return RefusedError(f"no estimate for {device}: {why}", f"estimates are possible for: {', '.join(devices())}")
