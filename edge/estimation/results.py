"""What `edge estimate` answers for networks other than language models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.estimation.edge_tpu_split import EdgeTpuSplit
from edge.estimation.graph_facts import GraphFacts
from runtimes.artifact.json_fields import JsonObject, to_json


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a model would need on a system.

    low_ms, high_ms: The 90 % band; None if the model is outside of everything that was measured.
    energy_mj: Energy of one inference at the wall; None if the rows do not contain it.
    memory_bytes: Weights, and what the largest operator reads and writes; without the engine.
    basis: What the errors belong to: "variant" of a published family, "new family", or "outside".
    error: The median relative error for that basis.
    sending_ms: Edge TPU: the part of the latency for parameters that do not fit on the chip; None for other processors.
    """

    device: str
    processor: str
    engine: str
    engine_version: str
    precision: str
    latency_ms: float
    low_ms: float | None
    high_ms: float | None
    fps: float
    energy_mj: float | None
    memory_bytes: int
    basis: str
    error: float | None
    models: int
    source: str
    sending_ms: float | None = None


@dataclass(frozen=True, kw_only=True)
class EstimateReport:
    """The estimates for a model, the fastest device first.

    relative: The published model that it is a variant of, or None.
    edge_tpu: How it divides between an Edge TPU and the CPU, if one of the devices has one.
    """

    model: str
    facts: GraphFacts
    relative: str | None
    estimates: Sequence[Estimate]
    edge_tpu: EdgeTpuSplit | None = None

    def to_json(self) -> JsonObject:
        """Return the object that `edge estimate --json` prints."""
        facts: JsonObject = {"macs": self.facts.macs, **to_json(self.facts)}
        return {**to_json(self), "facts": facts}
