"""The request and result of a conversion, as they cross the process boundary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.gguf.base import GgufOptions
from converters.options import ConvertOptions
from converters.registry import options_type
from converters.sources import exporting_source
from converters.sources.source import SourceOptions
from runtimes.artifact import Preprocess, TaskStatement
from runtimes.artifact.json_fields import Fields, JsonObject, to_json
from runtimes.artifact.self_check import RowScores
from runtimes.jobs import Job

# What the names of arrays begin with in the file of `ConvertRequest.answers`, before those of inputs and outputs.
SOURCE, EXPECTED, RESULT, INPUT = "source:", "expected:", "result:", "input:"
SIZES = "sizes"  # the folder in `ConvertRequest.scratch` for a copy of the source with the sizes of `--shape`
PLAIN = "plain"  # the one for a copy without what only ONNX Runtime reads (`converters.onnx.fixed_shapes`)
MAX_DROP = 0.01  # the default of how much top-1 accuracy may drop


@dataclass(frozen=True, kw_only=True)
class ConvertRequest(Job["ConvertResult"]):
    """A conversion.

    source: A model file, or the folder of a model or artifact.
    steps: Converter ids in order; empty to package the source unchanged.
    format: The format of the result, in `options.precision`.
    options: The options of the last converter.
    out: The existing folder to write the artifact to.
    scratch: A folder for intermediate files.
    samples: An .npz with `pixels` (uint8 [n, h, w, 3]) or arrays by input name.
    preprocess, kind, label_offset: Override the source's manifest; `kind` is probability or logit.
    kind_in_file: The kind that the source's file shows, if neither the user, the manifest nor the outputs do.
    labels: A file with one label per line.
    kept: The path that a failed verification reports.
    origin: {"name", "format", "sha256"} for the manifest if `source` was made from another model.
    task: What the source does, for the manifest.
    tokenizer: A tokenizer.json to pack with the artifact.
    answers: An .npz to write the proof's first inputs and outputs to, as real numbers: the source's inputs, its outputs
        under its own names, the same under the result's names and in its layout, and the result's outputs.
    evaluation: An .npz of labeled inputs, on which top-1 accuracy may drop by `max_drop`, 0 to 1.
    row_scores: The scores by which the source's decoder reads rows of its outputs; None if it reads all of them.
    """

    name = "convert"
    source: Path
    steps: tuple[str, ...]
    format: str
    options: ConvertOptions
    out: Path
    scratch: Path
    samples: Path | None = None
    preprocess: Preprocess | None = None
    kind: str | None = None
    kind_in_file: str | None = None
    label_offset: int | None = None
    labels: Path | None = None
    kept: str = ""
    origin: Mapping[str, str] | None = None
    evaluation: Path | None = None
    max_drop: float = MAX_DROP
    task: TaskStatement | None = None
    tokenizer: Path | None = None
    answers: Path | None = None
    row_scores: RowScores | None = None

    @property
    def subject(self) -> str:
        """The source."""
        return str(self.source)

    @classmethod
    def from_json(cls, fields: Fields) -> ConvertRequest:
        """Parse the job."""
        steps = fields.texts("steps")
        return cls(
            source=Path(fields.text("source")),
            steps=steps,
            format=fields.text("format"),
            options=options_type(steps).from_json(fields.mapping("options")),
            out=Path(fields.text("out")),
            scratch=Path(fields.text("scratch")),
            samples=_path(fields, "samples"),
            preprocess=fields.optional("preprocess", Preprocess.read),
            kind=fields.text("kind") if fields.has("kind") else None,
            kind_in_file=fields.text("kind_in_file") if fields.has("kind_in_file") else None,
            label_offset=fields.integer("label_offset") if fields.has("label_offset") else None,
            labels=_path(fields, "labels"),
            kept=fields.text("kept") if fields.has("kept") else "",
            origin=fields.mapping("origin") if fields.has("origin") else None,
            evaluation=_path(fields, "evaluation"),
            max_drop=fields.number("max_drop") if fields.has("max_drop") else MAX_DROP,
            task=fields.optional("task", TaskStatement.read) if fields.has("task") else None,
            tokenizer=_path(fields, "tokenizer"),
            answers=_path(fields, "answers"),
            row_scores=fields.optional("row_scores", RowScores.read),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> ConvertResult:
        """Parse the answer."""
        return ConvertResult.from_json(fields)


@dataclass(frozen=True, kw_only=True)
class LlmConvertRequest(Job["ConvertResult"]):
    """A conversion of a language model.

    kind: The result of `converters.gguf.detect.recognize`.
    options: The options of the converter from `kind`; `base` is the Hugging Face folder of an adapter's base.
    out: The existing folder to write the artifact to.
    scratch: A folder for intermediate files.
    kept: The path that a failed verification reports.
    """

    name = "convert_text"
    source: Path
    kind: str
    options: GgufOptions
    out: Path
    scratch: Path
    kept: str = ""

    @property
    def subject(self) -> str:
        """The source."""
        return str(self.source)

    @classmethod
    def from_json(cls, fields: Fields) -> LlmConvertRequest:
        """Parse the job."""
        return cls(
            source=Path(fields.text("source")),
            kind=fields.text("kind"),
            options=GgufOptions.from_json(fields.mapping("options")),
            out=Path(fields.text("out")),
            scratch=Path(fields.text("scratch")),
            kept=fields.text("kept"),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> ConvertResult:
        """Parse the answer."""
        return ConvertResult.from_json(fields)


@dataclass(frozen=True)
class ExportedModel:
    """The result of an `ExportJob`: the path of the program."""

    model: Path


@dataclass(frozen=True, kw_only=True)
class ExportJob(Job[ExportedModel]):
    """Export the model `where` into the existing folder `out`, as its source (`converters.sources`) does it."""

    name = "export"
    source: str
    where: str
    options: SourceOptions
    out: Path

    @property
    def subject(self) -> str:
        """The model."""
        return self.where

    @classmethod
    def from_json(cls, fields: Fields) -> ExportJob:
        """Parse the job."""
        source = fields.text("source")
        return cls(
            source=source,
            where=fields.text("where"),
            options=exporting_source(source).Options.from_json(fields.mapping("options")),
            out=Path(fields.text("out")),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> ExportedModel:
        """Parse the answer."""
        return ExportedModel(Path(fields.text("model")))


@dataclass(frozen=True, kw_only=True)
class SamplesAnswer:
    """The result of a `SamplesJob`: the number of samples, why the code was stopped ("" at its end), their digest."""

    count: int
    stopped: str
    digest: str


@dataclass(frozen=True, kw_only=True)
class SamplesJob(Job[SamplesAnswer]):
    """Run the user's code that `where` names for calibration samples, and write them to the .npz `out` (None: none).

    doing: What the samples are for, in progress messages.
    """

    name = "samples"
    where: str
    out: Path | None
    doing: str

    @property
    def subject(self) -> str:
        """The code."""
        return self.where

    @classmethod
    def from_json(cls, fields: Fields) -> SamplesJob:
        """Parse the job."""
        return cls(where=fields.text("where"), out=_path(fields, "out"), doing=fields.text("doing"))

    @staticmethod
    def answer_from_json(fields: Fields) -> SamplesAnswer:
        """Parse the answer."""
        return SamplesAnswer(
            count=fields.integer("count"), stopped=fields.text("stopped"), digest=fields.text("digest")
        )


@dataclass(frozen=True, kw_only=True)
class TaskAgreement:
    """How the result agrees with the source at the level of the task.

    task: The task's id.
    inputs: The number of inputs.
    agreeing: How many of them have results that agree.
    metrics: The means of the task's metrics, such as the IoU of matched boxes.
    message: The first comparison that does not agree, else the first one, in words.
    """

    task: str
    inputs: int
    agreeing: int
    metrics: Mapping[str, float]
    message: str

    def __str__(self) -> str:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        text = f"{self.task}: {self.agreeing} of {self.inputs} inputs agree with the source ({numbers})"
        return text if self.agreeing == self.inputs else f"{text}; {self.message}"


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """The result of a conversion and its verification.

    files: The artifact's files, by name.
    proof: As in the manifest.
    accuracy: None if it was not requested.
    notes: Notes for the user.
    left: Commands that the user must run.
    seconds: The time of each converter, of running the source and of the verification.
    artifact: The artifact's final folder.
    task: The comparison at the level of the task; None if the source has none that is known.
    """

    format: str
    precision: str
    files: tuple[str, ...]
    proof: Mapping[str, Any]
    accuracy: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    artifact: Path | None = None
    task: TaskAgreement | None = None

    def to_json(self) -> JsonObject:
        """Return the result as JSON."""
        return to_json(self)

    @classmethod
    def from_json(cls, fields: Fields) -> ConvertResult:
        """Parse the result of `to_json`."""
        return cls(
            format=fields.text("format"),
            precision=fields.text("precision"),
            files=fields.texts("files"),
            proof=fields.mapping("proof"),
            accuracy=fields.mapping("accuracy") if fields.has("accuracy") else None,
            notes=fields.texts("notes"),
            left=fields.texts("left"),
            seconds=fields.mapping("seconds"),
            artifact=_path(fields, "artifact"),
        )


def _path(fields: Fields, key: str) -> Path | None:
    return Path(fields.text(key)) if fields.has(key) else None
