"""A language model that is to become GGUF, whatever it comes from; and the check that nothing of it is missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from converters.gguf.network import Network
from converters.gguf.vocabulary import Encode, Vocabulary
from converters.gguf.weights import Weights
from runtimes.arrays import Array
from runtimes.errors import InputError

_IGNORED = ("rotary_emb.inv_freq", "lm_head.weight", "rope.freqs")  # computed anew, or tied


@dataclass(frozen=True)
class LanguageModel:
    """One model: `weights` by the names of GGUF, in the source's own order of rows; `encode` is the source's.

    `folder` is the Hugging Face folder where it is one and `weights` are what lies in it: transformers can run it.
    """

    name: str
    network: Network
    vocabulary: Vocabulary
    weights: Weights
    encode: Encode
    folder: Path | None = None
    notes: tuple[str, ...] = ()


class Renamed:
    """Weights under other names: `rename` leads from the name that is asked for to that of `weights`."""

    def __init__(self, weights: Weights, rename: Callable[[str], str], asked: set[str]) -> None:
        self._weights, self._rename = weights, rename
        self._names = {name for name in asked if rename(name) in weights.names()}

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
    """InputError where a tensor is missing or of another shape than the network's."""
    for name, shape in network.tensors().items():
        if name not in weights.names():
            raise InputError(f"{where} lacks the tensor '{name}'", "check that every file of the model is there")
        if weights.shape(name) != shape:
            given = list(weights.shape(name))
            what = f"{where}: '{name}' has the shape {given}, its configuration says {list(shape)}"
            raise InputError(what, "check that configuration and weights belong together")


def check_nothing_left(names: set[str], read: set[str], where: Path) -> None:
    """InputError where there are weights that nothing reads: the network is another one than it says."""
    left = sorted(name for name in names - read if not name.endswith(_IGNORED))
    if left:
        what = f"{where} holds {len(left)} tensors that its architecture does not have, such as '{left[0]}'"
        raise InputError(what, "the model was changed in a way that is not converted")
