"""The child process that reads HDF5 files with h5py, so that its native code parses no untrusted file in the parent."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.artifact.json_fields import Fields
from runtimes.errors import EngineMissingError, InputError, first_line
from runtimes.job_server import handler, serve
from runtimes.jobs import Job, Report
from runtimes.registry import install_hint


@dataclass(frozen=True)
class ModelAttributes:
    """The attributes of a Keras file, as text: the first is JSON."""

    model_config: str
    keras_version: str


@dataclass(frozen=True)
class AttributesJob(Job[ModelAttributes]):
    """Read the attributes of the HDF5 file `artifact`."""

    name = "attributes"
    artifact: str

    @property
    def subject(self) -> str:
        """The file."""
        return self.artifact

    @classmethod
    def from_json(cls, fields: Fields) -> AttributesJob:
        """Read the job from JSON."""
        return cls(fields.text("artifact"))

    @staticmethod
    def answer_from_json(fields: Fields) -> ModelAttributes:
        """Read the answer from JSON."""
        return ModelAttributes(fields.text("model_config"), fields.text("keras_version"))


def attributes(job: AttributesJob, _report: Report) -> ModelAttributes:
    """Read the attributes of a Keras file. Raises InputError if it is not a Keras model."""
    path = Path(job.artifact)
    try:
        import h5py
    except ImportError:
        raise EngineMissingError("reading .h5 files needs h5py", install_hint("keras")) from None
    try:
        with h5py.File(path, "r") as file:
            return ModelAttributes(_text(file, "model_config"), _text(file, "keras_version"))
    except (OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise InputError(
            f"{path} is not a readable Keras .h5 model: {first_line(error)}",
            "compare its size and sha256 with the original's",
        ) from None


def _text(file: Any, name: str) -> str:
    value = file.attrs.get(name)
    if value is None and name == "model_config":
        raise KeyError("it contains weights but no model")
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


if __name__ == "__main__":
    serve({"attributes": handler(AttributesJob, attributes)})
