"""A language model that edge writes itself, and the check that its weights are complete."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.gguf.hyperparameters import Network
from converters.gguf.model_parts import ModelParts, OnTensor
from converters.gguf.reference import source_scores
from converters.gguf.vocabulary import Vocabulary
from converters.gguf.weights import Weights
from converters.gguf.writer import write_model
from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import InputError

_IGNORED = ("rotary_emb.inv_freq", "lm_head.weight", "rope.freqs")  # recomputed, or tied


@dataclass(frozen=True)
class LanguageModel(ModelParts):
    """A model that edge writes and computes itself; see `TextModel`."""

    def write(self, path: Path, precision: str, on_tensor: OnTensor) -> None:
        """See `TextModel`."""
        write_model(self, path, precision, on_tensor)

    def scores(self, texts: list[list[int]]) -> tuple[list[Array], str]:
        """See `TextModel`."""
        return source_scores(self, texts)

    def facts(self) -> JsonObject:
        """See `TextModel`."""
        return {"converter": "edge"}


class RenamedWeights:
    """Weights under other names: `rename` converts a name to that in `weights`."""

    def __init__(self, weights: Weights, rename: Callable[[str], str], names: set[str]) -> None:
        self._weights, self._rename = weights, rename
        self._names = {name for name in names if rename(name) in weights.names()}

    def names(self) -> set[str]:
        """See `Weights`."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Weights`."""
        return self._weights.shape(self._rename(name))

    def load(self, name: str) -> Array:
        """See `Weights`."""
        return self._weights.load(self._rename(name))


def check_complete(network: Network, weights: Weights, where: Path) -> None:
    """Raise InputError if a tensor is missing, or has another shape than in the configuration."""
    for name, shape in network.tensors().items():
        if name not in weights.names():
            raise InputError(
                f"{where} lacks the tensor '{name}'",
                "the model may be a variant of its architecture that edge does not support, or a file of it is missing",
            )
        if weights.shape(name) != shape:
            actual = list(weights.shape(name))
            what = f"{where}: '{name}' has the shape {actual}, its configuration says {list(shape)}"
            raise InputError(
                what,
                "the model may be a variant that edge does not support, or the configuration may be another model's",
            )


def check_tokens(vocabulary: Vocabulary, network: Network, where: Path) -> None:
    """Raise InputError if the tokenizer has tokens that the network has no embeddings for."""
    if len(vocabulary.tokens) > network.vocabulary:
        what = f"{where} has {len(vocabulary.tokens)} tokens, but embeddings for only {network.vocabulary}"
        raise InputError(what, "use the tokenizer that the model was trained with")


def check_nothing_left(names: set[str], read: set[str], where: Path) -> None:
    """Raise InputError if there are unused weights: the model then differs from its declared architecture."""
    left = sorted(name for name in names - read if not name.endswith(_IGNORED))
    if left:
        what = f"{where} has {len(left)} tensors that its architecture does not have, such as '{left[0]}'"
        raise InputError(what, "the model was modified in a way that edge does not support")
