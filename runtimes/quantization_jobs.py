"""The jobs that quantize a language model, and measure what it loses; a worker process answers them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from runtimes.artifact.json_fields import Fields
from runtimes.jobs import Job, ModelJob


@dataclass(frozen=True)
class TensorError:
    """The relative error of a tensor's weights: the root mean square of the differences over that of the weights."""

    tensor: str
    type: str
    relative_error: float

    @classmethod
    def from_json(cls, fields: Fields) -> TensorError:
        """Parse the error."""
        return cls(fields.text("tensor"), fields.text("type"), fields.number("relative_error"))


@dataclass(frozen=True)
class QuantizeAnswer:
    """The file that was written, and the error of each tensor whose type changed, the largest first.

    importance: The number of tensors that were quantized by their importance.
    """

    file: str
    errors: Sequence[TensorError] = ()
    importance: int = 0


@dataclass(frozen=True)
class QuantizeJob(Job[QuantizeAnswer]):
    """Rewrite the GGUF file `artifact` to `out` with the type `type`. `again` permits an already quantized source.

    imatrix: A file of llama-imatrix, which says which columns of the weights matter.
    """

    name = "quantize"
    artifact: str
    out: str
    type: str
    threads: int | None = None
    again: bool = False
    imatrix: str | None = None

    @property
    def subject(self) -> str:
        """The source file."""
        return self.artifact

    @classmethod
    def from_json(cls, fields: Fields) -> QuantizeJob:
        """Parse the job."""
        return cls(
            artifact=fields.text("artifact"),
            out=fields.text("out"),
            type=fields.text("type"),
            threads=fields.optional_integer("threads"),
            again=fields.has("again") and fields.flag("again"),
            imatrix=fields.optional_text("imatrix"),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> QuantizeAnswer:
        """Parse the answer."""
        errors = tuple(TensorError.from_json(child) for child in fields.children("errors"))
        return QuantizeAnswer(fields.text("file"), errors, fields.integer("importance"))


@dataclass(frozen=True)
class ImportanceAnswer:
    """The number of tensors with an importance, and the number of tokens that it was computed from."""

    tensors: int
    tokens: int


@dataclass(frozen=True)
class ImportanceJob(Job[ImportanceAnswer]):
    """Compute from the text file `text` which columns of a model's weights matter, and write that to `out`."""

    name = "importance"
    artifact: str
    text: str
    out: str
    threads: int | None = None

    @property
    def subject(self) -> str:
        """The model's file."""
        return self.artifact

    @classmethod
    def from_json(cls, fields: Fields) -> ImportanceJob:
        """Parse the job."""
        return cls(
            artifact=fields.text("artifact"),
            text=fields.text("text"),
            out=fields.text("out"),
            threads=fields.optional_integer("threads"),
        )

    @staticmethod
    def answer_from_json(fields: Fields) -> ImportanceAnswer:
        """Parse the answer."""
        return ImportanceAnswer(fields.integer("tensors"), fields.integer("tokens"))


@dataclass(frozen=True)
class UncertainValue:
    """A value and its standard error."""

    value: float
    error: float

    @classmethod
    def from_json(cls, fields: Fields) -> UncertainValue:
        """Parse the estimate."""
        return cls(fields.number("value"), fields.number("error"))


@dataclass(frozen=True)
class PerplexityAnswer:
    """Perplexity of both models on a text, over `tokens` scored tokens, and the ratio after/before.

    kl_divergence: From the first model's distribution to the second's, mean over the first `kl_tokens` scored tokens.
    same_top: The share of these at which both models' best token is the same.
    """

    tokens: int
    before: UncertainValue
    after: UncertainValue
    ratio: UncertainValue
    kl_divergence: UncertainValue
    kl_tokens: int
    same_top: float


@dataclass(frozen=True)
class PerplexityJob(ModelJob[PerplexityAnswer]):
    """Compare the perplexity of the models `before` and `artifact` on the text file `text`."""

    name = "perplexity"
    artifact: str
    before: str
    text: str
    runtime: str | None = None

    @classmethod
    def from_json(cls, fields: Fields) -> PerplexityJob:
        """Parse the job."""
        return cls(fields.text("artifact"), fields.text("before"), fields.text("text"), fields.optional_text("runtime"))

    @staticmethod
    def answer_from_json(fields: Fields) -> PerplexityAnswer:
        """Parse the answer."""

        def estimate(key: str) -> UncertainValue:
            return UncertainValue.from_json(fields.child(key))

        return PerplexityAnswer(
            tokens=fields.integer("tokens"),
            before=estimate("before"),
            after=estimate("after"),
            ratio=estimate("ratio"),
            kl_divergence=estimate("kl_divergence"),
            kl_tokens=fields.integer("kl_tokens"),
            same_top=fields.number("same_top"),
        )
