"""The worker process that builds the table's artifacts: `python -m edge.table.worker`.

It serves the jobs of `converters.worker` and two more, which build MobileNetV2 and remove its softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from converters.worker import HANDLERS as CONVERTER_HANDLERS
from runtimes.artifact import Artifact
from runtimes.artifact.json_fields import Fields, JsonObject
from runtimes.job_server import Handler, handler, serve
from runtimes.jobs import Job, Report


@dataclass(frozen=True)
class BuiltModel:
    """The model file that was built."""

    model: str


@dataclass(frozen=True, kw_only=True)
class BuildJob(Job[BuiltModel]):
    """Build MobileNetV2 for `framework` in the folder `out`, from the file `weights`, or from random weights."""

    name = "build"
    framework: str
    weights: str | None
    out: str

    @classmethod
    def from_json(cls, fields: Fields) -> BuildJob:
        """Read a job."""
        return cls(framework=fields.text("framework"), weights=fields.optional_text("weights"), out=fields.text("out"))

    @staticmethod
    def answer_from_json(fields: Fields) -> BuiltModel:
        """Read an answer."""
        return BuiltModel(fields.text("model"))


@dataclass(frozen=True)
class LogitHead:
    """The proof that the model without its softmax gives the same results as its source."""

    proof: JsonObject


@dataclass(frozen=True)
class LogitHeadJob(Job[LogitHead]):
    """Write `artifact` without its softmax to the folder `out`."""

    name = "logit_head"
    artifact: str
    out: str

    @property
    def subject(self) -> str:
        """The artifact."""
        return self.artifact

    @classmethod
    def from_json(cls, fields: Fields) -> LogitHeadJob:
        """Read a job."""
        return cls(fields.text("artifact"), fields.text("out"))

    @staticmethod
    def answer_from_json(fields: Fields) -> LogitHead:
        """Read an answer."""
        return LogitHead(dict(fields.mapping("proof")))


def build(job: BuildJob, _report: Report) -> BuiltModel:
    """Build MobileNetV2 for one framework."""
    from edge.table import mobilenet_v2

    weights = mobilenet_v2.weights_of(Path(job.weights) if job.weights else None)
    return BuiltModel(str(mobilenet_v2.build(Path(job.out), weights, job.framework)))


def logit_head(job: LogitHeadJob, _report: Report) -> LogitHead:
    """Write an artifact without its softmax."""
    from edge.table.logit_head import write_logit_head

    return LogitHead(write_logit_head(Artifact.open(Path(job.artifact)), Path(job.out)))


HANDLERS: Mapping[str, Handler] = {
    **CONVERTER_HANDLERS,
    "build": handler(BuildJob, build),
    "logit_head": handler(LogitHeadJob, logit_head),
}

if __name__ == "__main__":
    serve(HANDLERS)
