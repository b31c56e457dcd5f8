"""The answer to the jobs "measure" and "measure_text", as JSON.

Keys are added, never renamed. An unknown value is null, or absent if the measurement was interrupted. The keys are
documented in `runtimes.measurement.tensor_model` and `runtimes.llm.measurement`.
"""

from __future__ import annotations

from typing import Sequence, TypedDict

from runtimes.artifact.json_fields import JsonObject
from runtimes.host.schema import Conditions
from runtimes.measurement.operator_times import ProfileSummary
from runtimes.measurement.throughput import ThroughputSummary


class MachineSummary(TypedDict, total=False):
    """The machine of the measurement."""

    cpu: str | None
    logical_cores: int | None
    memory_bytes: int | None
    os: str | None
    python: str | None
    board: str | None
    emulated: bool


class InputSummary(TypedDict):
    """The input, the same in every run; `kind` is "picture", "synthetic", "arrays", ..."""

    kind: str
    sha256: str | None


class OutputSummary(TypedDict):
    """The first output; `kind` is "probability", "logit" or null."""

    name: str | None
    kind: str | None


class ScoredClass(TypedDict):
    """One of the top classes, with the fields of `runtimes.tasks.classification.ClassScore`."""

    index: int
    label: str | None
    probability: float


class ConditionsAround(TypedDict):
    """The machine's conditions before the engine was imported, and after the loop."""

    before: Conditions
    after: Conditions


class BrowserSummary(TypedDict, total=False):
    """The browser of the measurement; `fallbacks` are sentences about what it could not use."""

    name: str
    user_agent: str
    isolated: bool
    relaxed_simd: bool
    gpu: str | None
    fallbacks: list[str]


class ModelSummary(TypedDict):
    """The measured language model."""

    name: str
    architecture: str
    parameters: int | None
    bytes: int | None
    context: int


class SpeedTest(TypedDict):
    """A test of a language model: `pp512` processes a prompt of 512 tokens, `tg128` generates 128."""

    test: str
    tokens: int
    seconds: Sequence[float]


class MeasureAnswer(TypedDict, total=False):
    """All keys; the last groups belong to language models and to measurements that failed."""

    status: str
    protocol: JsonObject
    artifact: str
    model_sha256: str
    edge_version: str
    format: str
    precision: str
    runtime: str
    runtime_version: str | None
    threads: int | None
    device: str
    settings: dict[str, str]
    samples_ms: list[float]
    warmup_ms: list[float]
    total_s: float
    import_ms: float
    load_ms: float
    first_ms: float
    peak_rss_bytes: int | None
    energy_j: float | None
    energy_source: str | None
    energy_note: str | None
    began_at: float | None
    other_cores: float | None
    conditions: ConditionsAround
    machine: MachineSummary
    browser: BrowserSummary
    input: InputSummary
    output: OutputSummary | None
    top: Sequence[ScoredClass]
    raw: float | None
    profile: ProfileSummary | None
    profile_note: str
    batch: int
    throughput: ThroughputSummary

    batch_threads: int | None
    memory: str | None
    model: ModelSummary
    tests: list[SpeedTest]
    ttft_ms: list[float]

    error: str
    message: str
    hint: str
