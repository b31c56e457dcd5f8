"""The typed jobs and answers of `runtimes.worker`.

A job is sent as one JSON object, {"job": its name, ...its fields}, and its answer as another. `runtimes.job_server`
is the worker's side and `edge.workers.process` the parent's. Jobs of other workers subclass `Job` next to their
handlers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import Any, Callable, ClassVar, Generic, Mapping, Sequence, TypedDict, TypeVar, cast

from runtimes.artifact import TensorSpec
from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue, to_json
from runtimes.measurement.answer import MeasureAnswer

R = TypeVar("R")
J = TypeVar("J", bound="Job[Any]")


class Progress(TypedDict, total=False):
    """A progress report of a worker.

    phase: The current phase, as text for the user.
    runs: Inferences completed in this phase.
    at: Unix time in seconds, by the worker's clock.
    doing: The current step, as text for the user; `done` of `total` units are complete.
    """

    phase: str
    runs: int
    at: float
    doing: str
    done: int
    total: int


Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Job(ABC, Generic[R]):
    """A job whose answer is an R. Subclasses are frozen dataclasses; their fields are the keys of the JSON object."""

    name: ClassVar[str]

    @property
    def subject(self) -> str:
        """The path of the file that the job works on, for error messages; empty if there is none."""
        return ""

    def to_json(self) -> JsonObject:
        """Serialize the job."""
        return {"job": self.name, **to_json(self)}

    @classmethod
    @abstractmethod
    def from_json(cls: type[J], fields: Fields) -> J:
        """Parse the job."""

    @staticmethod
    @abstractmethod
    def answer_from_json(fields: Fields) -> R:
        """Parse the answer."""


class ModelJob(Job[R]):
    """A job that runs an artifact on an engine. If `runtime` is None, the preferred engine of the format is used."""

    artifact: str
    runtime: str | None

    @property
    def device(self) -> str:
        """The engine's name of the device that the model runs on."""
        return "cpu"

    @property
    def subject(self) -> str:
        """The artifact."""
        return self.artifact

    def with_files(self: J, **changes: str | None) -> J:
        """Return a copy of the job with other file paths."""
        return replace(self, **changes)


class EngineJob(ModelJob[R]):
    """A job on an engine with threads, a device and settings of its own."""

    options: EngineOptions

    @property
    def device(self) -> str:
        """See `ModelJob`."""
        return self.options.device


@dataclass(frozen=True)
class EngineOptions:
    """How an engine should run a model; see `runtimes.session.RunOptions`."""

    threads: int | None = None
    device: str = "cpu"
    settings: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, fields: Fields) -> EngineOptions:
        """Parse the options. Absent ones are left to the engine."""
        return cls(
            fields.optional_integer("threads"),
            fields.optional_text("device") or "cpu",
            fields.texts_by_name("settings"),
        )


@dataclass(frozen=True)
class Description:
    """An engine's description of an open model."""

    runtime: str
    runtime_version: str
    inputs: Sequence[TensorSpec]
    outputs: Sequence[TensorSpec]


@dataclass(frozen=True)
class DescribeJob(EngineJob[Description]):
    """Open the model and describe its inputs and outputs."""

    name = "describe"
    artifact: str
    runtime: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)

    @classmethod
    def from_json(cls, fields: Fields) -> DescribeJob:
        """Parse the job."""
        return cls(fields.text("artifact"), fields.optional_text("runtime"), _options(fields))

    @staticmethod
    def answer_from_json(fields: Fields) -> Description:
        """Parse the answer."""
        return Description(
            runtime=fields.text("runtime"),
            runtime_version=fields.text("runtime_version"),
            inputs=tuple(TensorSpec.read(one) for one in fields.children("inputs")),
            outputs=tuple(TensorSpec.read(one) for one in fields.children("outputs")),
        )


@dataclass(frozen=True)
class RunAnswer:
    """The timing of a run: the model's first inference, and the latency of each sample."""

    runtime: str
    runtime_version: str
    first_ms: float
    latency_ms: Sequence[float]


@dataclass(frozen=True)
class RunJob(EngineJob[RunAnswer]):
    """Run every sample of `inputs` (.npz, stacked) and write the raw outputs to `outputs`.

    With `sequence`, the samples follow one another, from the initial state of the model: what it keeps in variables,
    and `states`, its inputs that take what an output gave for the sample before ({input name: output name}; zeros at
    first). The outputs of `states` are not written.
    """

    name = "run"
    artifact: str
    inputs: str
    outputs: str
    runtime: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    sequence: bool = False
    states: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, fields: Fields) -> RunJob:
        """Parse the job."""
        return cls(
            artifact=fields.text("artifact"),
            inputs=fields.text("inputs"),
            outputs=fields.text("outputs"),
            runtime=fields.optional_text("runtime"),
            options=_options(fields),
            sequence=fields.flag("sequence") if fields.has("sequence") else False,
            states=fields.texts_by_name("states"),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> RunAnswer:
        """Parse the answer."""
        return RunAnswer(
            runtime=fields.text("runtime"),
            runtime_version=fields.text("runtime_version"),
            first_ms=fields.number("first_ms"),
            latency_ms=fields.numbers("latency_ms"),
        )


@dataclass(frozen=True)
class SoakAnswer:
    """How many inferences were repeated, and by how much memory grew from the 100th to the last; None for fewer."""

    inferences: int
    memory_growth_bytes: int | None = None

    @classmethod
    def read(cls, fields: Fields) -> SoakAnswer:
        """Parse from JSON."""
        return cls(fields.integer("inferences"), fields.optional_integer("memory_growth_bytes"))


@dataclass(frozen=True)
class VerifyAnswer:
    """Whether the artifact's outputs match its source's, the metrics, and a summary in one line.

    soak: The result of the repeated inferences; None for language models and browsers.
    """

    passed: bool
    metrics: Mapping[str, float]
    message: str
    runtime: str
    runtime_version: str
    soak: SoakAnswer | None = None

    def to_json(self) -> JsonObject:
        """As `edge verify --json` prints it."""
        return to_json(self)


@dataclass(frozen=True)
class VerifyJob(EngineJob[VerifyAnswer]):
    """Verify the artifact against its digests and its self-check.

    soak: How many inferences to run on its inputs; 0 runs as many as fit into a fixed time.
    """

    name = "verify"
    artifact: str
    runtime: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    soak: int = 0

    @classmethod
    def from_json(cls, fields: Fields) -> VerifyJob:
        """Parse the job."""
        runtime, soak = fields.optional_text("runtime"), fields.optional_integer("soak") or 0
        return cls(fields.text("artifact"), runtime, _options(fields), soak)

    @staticmethod
    def answer_from_json(fields: Fields) -> VerifyAnswer:
        """Parse the answer."""
        return VerifyAnswer(
            passed=fields.flag("passed"),
            metrics=fields.numbers_by_name("metrics"),
            message=fields.text("message"),
            runtime=fields.text("runtime"),
            runtime_version=fields.text("runtime_version"),
            soak=fields.optional("soak", SoakAnswer.read),
        )


@dataclass(frozen=True)
class MeasureJob(EngineJob[MeasureAnswer]):
    """Time the model. The answer is described in `runtimes.measurement.tensor_model`.

    protocol: {"name": "steady" | "published", ...}, see `runtimes.measurement.protocols`.
    inputs: .npz of stacked inputs, of which sample 0 is used. Default: those of the artifact's self-check, else
        seeded synthetic ones.
    input_kind: What `inputs` holds: "picture" or "arrays".
    evaluate: .npz of stacked inputs to run afterwards, untimed.
    outputs: Where to write the dequantized outputs for `evaluate`: .npz, float32, stacked.
    keep: A folder to journal samples to as they are taken, see `runtimes.measurement.sample_journal`.
    shapes: Sizes for free axes, see `runtimes.shapes`; the inputs are then synthetic.
    profile: Whether to run the model once more afterwards, with the engine's profiler.
    batch: The size of the leading axis of every input; None leaves it.
    streams: Sessions that run side by side afterwards, to measure throughput: 0 for one on each core, None for none.
    """

    name = "measure"
    artifact: str
    runtime: str | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    protocol: Mapping[str, JsonValue] = field(default_factory=dict)
    inputs: str | None = None
    input_kind: str = "arrays"
    evaluate: str | None = None
    outputs: str | None = None
    keep: str | None = None
    shapes: Sequence[str] = ()
    profile: bool = False
    batch: int | None = None
    streams: int | None = None

    @classmethod
    def from_json(cls, fields: Fields) -> MeasureJob:
        """Parse the job."""
        return cls(
            artifact=fields.text("artifact"),
            runtime=fields.optional_text("runtime"),
            options=_options(fields),
            protocol=fields.mapping("protocol"),
            inputs=fields.optional_text("inputs"),
            input_kind=fields.optional_text("input_kind") or "arrays",
            evaluate=fields.optional_text("evaluate"),
            outputs=fields.optional_text("outputs"),
            keep=fields.optional_text("keep"),
            shapes=fields.texts("shapes") if fields.has("shapes") else (),
            profile=fields.flag("profile") if fields.has("profile") else False,
            batch=fields.optional_integer("batch"),
            streams=fields.optional_integer("streams"),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> MeasureAnswer:
        """Parse the answer."""
        answer: Any = fields.values
        return cast(MeasureAnswer, answer)


@dataclass(frozen=True)
class MeasureTextJob(ModelJob[MeasureAnswer]):
    """Time a language model; the answer is described in `runtimes.llm.measurement`.

    load: Fields of `runtimes.llm.session.LoadOptions`.
    prompt_tokens: Length of the prompt test; 0 skips it.
    gen_tokens: Length of the generation test; 0 skips it.
    repeats: Repetitions of each test.
    """

    name = "measure_text"
    artifact: str
    runtime: str | None = None
    load: Mapping[str, JsonValue] = field(default_factory=dict)
    prompt_tokens: int = 512
    gen_tokens: int = 128
    repeats: int = 5

    @classmethod
    def from_json(cls, fields: Fields) -> MeasureTextJob:
        """Parse the job."""
        counts = {key: fields.integer(key) for key in ("prompt_tokens", "gen_tokens", "repeats") if fields.has(key)}
        return cls(fields.text("artifact"), fields.optional_text("runtime"), fields.mapping("load"), **counts)

    @staticmethod
    def answer_from_json(fields: Fields) -> MeasureAnswer:
        """Parse the answer."""
        answer: Any = fields.values
        return cast(MeasureAnswer, answer)


@dataclass(frozen=True)
class Bandwidth:
    """Memory read bandwidth in bytes per second, one value per round."""

    bytes_s: Sequence[float]


@dataclass(frozen=True)
class BandwidthJob(Job[Bandwidth]):
    """Measure the memory read bandwidth of `threads` threads; see `runtimes.host.bandwidth`."""

    name = "bandwidth"
    threads: int

    @classmethod
    def from_json(cls, fields: Fields) -> BandwidthJob:
        """Parse the job."""
        return cls(fields.integer("threads"))

    @staticmethod
    def answer_from_json(fields: Fields) -> Bandwidth:
        """Parse the answer."""
        return Bandwidth(fields.numbers("bytes_s"))


def _options(fields: Fields) -> EngineOptions:
    return fields.optional("options", EngineOptions.from_json) or EngineOptions()
