"""Embedding: a vector whose direction says what the input is like."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonValue
from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.model_files.facts import ModelFacts, TextInputs
from runtimes.task import Agreement, Decoder, Result, Task
from runtimes.tensors import dequantize

POOLING, NORMALIZED = "pooling", "normalized"  # of the metadata: "mean" or "first"; "true"
_POOLED = (
    "averagepool",
    "averagepool2d",
    "globalaveragepool",
    "reducemean",
    "mean",
    "l2normalization",
    "lpnormalization",
)
_SENTENCE = ("sentence_embedding", "text_embeds", "image_embeds", "embedding", "embeddings")  # names of outputs
_FEWEST = 16  # numbers of an embedding that nothing but its operator shows; fewer could be anything
_COSINE = 0.95  # of results that agree


@dataclass(frozen=True)
class Similarity:
    """The cosine of the angle to the embedding of another input: 1 for the same direction, 0 for unrelated ones."""

    reference: str
    cosine: float


@dataclass(frozen=True, eq=False)  # comparing arrays does not give a bool
class Embedding(Result):
    """A vector, float32, and its cosines to given references."""

    vector: Array
    similarities: tuple[Similarity, ...] = ()

    def cosine(self, other: Embedding) -> float:
        """Return the cosine of the angle between two vectors; 0 if one of them is 0. Raises UsageError for sizes."""
        one, two = (np.asarray(each.vector, np.float64) for each in (self, other))
        if one.shape != two.shape:
            raise UsageError(f"the embeddings have {one.size} and {two.size} numbers", "compare those of one model")
        length = float(np.linalg.norm(one) * np.linalg.norm(two))
        return float(np.clip(one @ two / length, -1, 1)) if length else 0.0

    def compared(self, references: Mapping[str, Embedding]) -> Embedding:
        """Return a copy with the cosines to `references`, the most similar first."""
        found = (Similarity(name, self.cosine(other)) for name, other in references.items())
        return replace(self, similarities=tuple(sorted(found, key=lambda one: -one.cosine)))

    def to_json(self) -> JsonValue:
        """Return the numbers."""
        return [float(one) for one in self.vector]


@dataclass(frozen=True)
class FeatureVector(Decoder[Embedding]):
    """Decodes an output that is one vector for one input.

    output: The output's spec.
    text: The inputs that take a text; None if the model takes none.
    is_normalized: Whether the vector is brought to the length 1.
    """

    output: TensorSpec
    text: TextInputs | None = None
    is_normalized: bool = False
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> FeatureVector | None:
        """Accept a vector that the metadata, an output's name, or a last pooling or normalization shows."""
        spec = next((one for one in model.outputs if _plain(one) in _SENTENCE), None) or next(iter(model.outputs), None)
        if spec is None or not _is_vector(spec):
            return None
        size = max(size for size in spec.shape[1:] if isinstance(size, int))
        operator = (model.output_operator or "").lower().replace("_", "")
        is_pooled = model.picture is not None and operator in _POOLED and size >= _FEWEST and model.labels is None
        if model.task != EmbeddingTask.id and not is_pooled and _plain(spec) not in _SENTENCE:
            return None
        words = ("the output is an embedding: it is pooled features (--task)",) if is_pooled and not model.task else ()
        is_normalized = model.metadata.get(NORMALIZED) == "true"
        return cls(spec, model.text_inputs, is_normalized, assumptions=words)

    def texts(self) -> TextInputs | None:
        """Return the inputs that take a text."""
        return self.text

    def decode(self, outputs: Mapping[str, Array]) -> Embedding:
        """Return the vector. Raises InputError for an output of another layout."""
        return _check(dequantize(outputs[self.output.name], self.output.quantization), self.output, self.is_normalized)


@dataclass(frozen=True)
class TokenVectors(Decoder[Embedding]):
    """Decodes a vector for each token of a text: their mean, or that of the first token.

    output: The output's spec, [1, tokens, numbers].
    text: The inputs that take a text.
    takes_first: Whether the first token's vector stands for the text.
    is_normalized: Whether the vector is brought to the length 1.
    """

    output: TensorSpec
    text: TextInputs
    takes_first: bool = False
    is_normalized: bool = False
    assumptions: tuple[str, ...] = ()

    @classmethod
    def recognize(cls, model: ModelFacts) -> TokenVectors | None:
        """Accept three axes beside token ids, if the metadata or the output's name shows them."""
        text, spec = model.text_inputs, next(iter(model.outputs), None)
        if text is None or spec is None or len(spec.shape) != 3 or not isinstance(spec.shape[2], int):
            return None
        if model.task != EmbeddingTask.id and _plain(spec) not in ("last_hidden_state", "token_embeddings"):
            return None
        pooling = model.metadata.get(POOLING)
        words = () if pooling else ("a text is the mean of its tokens' vectors (--task)",)
        is_normalized = model.metadata.get(NORMALIZED) == "true"
        return cls(spec, text, pooling == "first", is_normalized, assumptions=words)

    def texts(self) -> TextInputs:
        """Return the inputs that take a text."""
        return self.text

    def reads(self) -> tuple[str, ...]:
        """Return the mask, which tells tokens from padding."""
        return (self.text.mask,) if self.text.mask else ()

    def decode(self, outputs: Mapping[str, Array]) -> Embedding:
        """Return the text's vector. Raises InputError for an output of another layout."""
        name = self.output.name
        tokens = dequantize(outputs[name], self.output.quantization)
        if tokens.ndim != 3 or tokens.shape[0] != 1 or not tokens.shape[1]:
            raise InputError(f"'{name}' is {list(tokens.shape)}, not one vector for each token", "give one text")
        mask = (
            np.asarray(outputs[self.text.mask]).reshape(-1) if self.text.mask in outputs else np.ones(tokens.shape[1])
        )
        if mask.size != tokens.shape[1] or not mask.any():
            raise InputError(f"'{self.text.mask}' masks {mask.size} tokens of {tokens.shape[1]}", "give one text")
        vector = tokens[0, 0] if self.takes_first else tokens[0, mask > 0].mean(axis=0, dtype=np.float64)
        return _check(vector, self.output, self.is_normalized)


class EmbeddingTask(Task[Embedding]):
    """Returns a vector that can be compared with those of other inputs."""

    id: ClassVar[str] = "embedding"
    rank: ClassVar[int] = 60  # after classification, whose scores are a vector, too
    resize: ClassVar[str] = "shorter_side"
    decoders = (TokenVectors, FeatureVector)

    def compare(self, expected: Embedding, actual: Embedding) -> Agreement:
        """Results agree with a cosine of at least 0.95."""
        if expected.vector.shape != actual.vector.shape:
            sizes = " and ".join(str(one.vector.size) for one in (expected, actual))
            return Agreement(agrees=False, message=f"the embeddings have {sizes} numbers")
        cosine = 1.0 if np.array_equal(expected.vector, actual.vector) else expected.cosine(actual)  # both may be 0
        return Agreement(cosine >= _COSINE, {"cosine": cosine}, f"cosine {cosine:.4f}")


def _plain(spec: TensorSpec) -> str:
    """Return an output's name without what exporters add: StatefulPartitionedCall:0, or the index of a tuple."""
    return spec.name.rsplit("/", 1)[-1].split(":")[0]


def _is_vector(spec: TensorSpec) -> bool:
    sizes = [size for size in spec.shape[1:] if size != 1]
    return len(sizes) == 1 and isinstance(sizes[0], int) and (isinstance(spec.shape[0], str) or spec.shape[0] == 1)


def _check(vector: Array, spec: TensorSpec, is_normalized: bool) -> Embedding:
    wanted = next(size for size in reversed(spec.shape) if size != 1)
    values = np.asarray(vector, np.float32).reshape(-1)
    if values.size != wanted:
        raise InputError(f"'{spec.name}' holds {values.size} numbers; one input gives {wanted}", "give one input")
    if not np.isfinite(values).all():
        raise InputError(f"the model computed NaN or infinity in '{spec.name}'", "check the input's values")
    length = float(np.linalg.norm(values.astype(np.float64)))
    return Embedding(values / np.float32(length) if is_normalized and length else values)
