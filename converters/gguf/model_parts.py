"""The parts of a language model that edge converts to GGUF, and the interface of its sources."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from converters.gguf.hyperparameters import Network
from converters.gguf.source_tokenizer import SourceTokenizer
from converters.gguf.staging import TemporaryFolder
from converters.gguf.vocabulary import Encode, Vocabulary
from converters.gguf.weights import Weights
from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject

OnTensor = Callable[[int, int], None]  # tensors written, tensors in total


class TextModel(Protocol):
    """A source that can be written as GGUF, and computes its own scores for the proof."""

    @property
    def name(self) -> str:
        """The name of the artifact."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the user."""

    @property
    def context(self) -> int:
        """The longest context for which the result computes the same."""

    @property
    def tokenizer(self) -> SourceTokenizer:
        """The source's own tokenizer."""

    def write(self, path: Path, precision: str, on_tensor: OnTensor, /) -> None:
        """Write `path` in fp32, fp16 or bf16."""

    def scores(self, texts: list[list[int]]) -> tuple[list[Array], str]:
        """Compute the scores of the next token after each token of each text.

        Returns float32 [tokens, vocabulary] per text, and the name of the program that computed them.
        """

    def facts(self) -> JsonObject:
        """Return the entries of the manifest about the conversion."""


@dataclass(frozen=True, kw_only=True)
class ModelParts:
    """The parts of a model that edge writes itself.

    weights: By their names in GGUF, with rows in the source's order.
    encode: The source's encoding.
    folder: The Hugging Face folder, if the source is one; transformers can run it.
    source: The source's tokenizer, if more than `encode` is known.
    adapter: The folder of a LoRA that is merged into `weights`.
    merged: The temporary folder of the merged weights, which lives as long as the model.
    """

    name: str
    network: Network
    vocabulary: Vocabulary
    weights: Weights
    encode: Encode
    folder: Path | None = None
    notes: tuple[str, ...] = ()
    source: SourceTokenizer | None = None
    adapter: Path | None = None
    merged: TemporaryFolder | None = None

    @property
    def context(self) -> int:
        """See `TextModel`."""
        return self.network.usable_context

    @property
    def tokenizer(self) -> SourceTokenizer:
        """See `TextModel`."""
        if self.source is not None:
            return replace(self.source, template=self.vocabulary.template)
        tokens, special = self.vocabulary.tokens, self.vocabulary.special
        bos, eos = (tokens[special[name]] if name in special else "" for name in ("bos", "eos"))
        return SourceTokenizer(
            encode=self.encode, added={}, special=special, bos=bos, eos=eos, template=self.vocabulary.template
        )
