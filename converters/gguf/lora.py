"""A PEFT LoRA folder: merged into the weights of its base, or written as an adapter that llama.cpp applies at load."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.gguf.hugging_face import hugging_face_name
from converters.gguf.network import Network, paired, rotation_heads
from converters.gguf.weights import SafetensorsFolder, Weights, read_json
from converters.gguf.writer import new_writer, write_tensors
from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.fields import Fields

CONFIG = "adapter_config.json"
_START = "base_model.model."
# What changes the arithmetic of plain LoRA, or brings weights beside it.
_REFUSED = (
    "use_dora",
    "fan_in_fan_out",
    "modules_to_save",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
    "lora_bias",
)


class Lora:
    """The two factors of every change, by the GGUF names of what they change: weight += strength × b @ a."""

    def __init__(self, folder: Path, network: Network) -> None:
        path = folder / CONFIG
        config = read_json(path, 2**22)
        fields = Fields(config, str(path))
        if str(config.get("peft_type", "LORA")).upper() != "LORA":
            raise InputError(f"{folder} is an adapter of the kind {config['peft_type']}", "what works: LORA")
        for key in _REFUSED:
            if config.get(key):
                raise InputError(
                    f"{path}: '{key}' is not converted", "merge it where it was trained: merge_and_unload()"
                )
        rank, alpha = fields.whole("r"), fields.number("lora_alpha")
        if not 1 <= rank <= 65536 or not math.isfinite(alpha):
            raise fields.reject("r", f"is {rank}, with lora_alpha {alpha}")
        self.rank = rank
        # llama.cpp divides by the rank; rank-stabilised LoRA by its root.
        self.alpha = alpha * math.sqrt(rank) if config.get("use_rslora") else alpha
        self._weights = SafetensorsFolder(folder, "adapter_model")
        self._pairs = _pairs(self._weights, network, rank, folder)

    @property
    def names(self) -> tuple[str, ...]:
        """What it changes."""
        return tuple(self._pairs)

    def factors(self, name: str) -> tuple[Array, Array]:
        """`a` [rank, in] and `b` [out, rank]."""
        first, second = self._pairs[name]
        return self._weights.load(first), self._weights.load(second)

    def change(self, name: str) -> Array:
        """What is added to the weight `name`."""
        first, second = self.factors(name)
        found: Array = np.float32(self.alpha / self.rank) * (second @ first)
        return found


class Merged:
    """Weights of a base with a LoRA in them."""

    def __init__(self, weights: Weights, lora: Lora) -> None:
        self._weights, self._lora = weights, lora

    def names(self) -> set[str]:
        """See `Weights`."""
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """See `Weights`."""
        return self._weights.shape(name)

    def load(self, name: str) -> Array:
        """See `Weights`."""
        values = self._weights.load(name)
        return values + self._lora.change(name) if name in self._lora.names else values


def write_adapter(lora: Lora, network: Network, path: Path, name: str) -> None:
    """Write the GGUF adapter `path`, in single precision: it is small."""
    writer = new_writer(path, network.architecture)
    writer.add_string("general.type", "adapter")
    writer.add_name(name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", lora.alpha)
    shapes: dict[str, tuple[int, ...]] = {}
    for one in lora.names:
        out, width = network.tensors()[one]
        shapes |= {f"{one}.lora_a": (lora.rank, width), f"{one}.lora_b": (out, lora.rank)}

    def load(wanted: str) -> Array:
        changed, _, which = wanted.rpartition(".")
        values = lora.factors(changed)[which == "lora_b"]
        heads = rotation_heads(network, changed)
        return paired(values, heads) if heads and network.permuted and which == "lora_b" else values

    write_tensors(writer, shapes, dict.fromkeys(shapes, np.float32), load, lambda _done, _total: None, path)


def _pairs(weights: Weights, network: Network, rank: int, folder: Path) -> Mapping[str, tuple[str, str]]:
    """Names of both factors by what they change; InputError for what does not fit the base."""
    found: dict[str, tuple[str, str]] = {}
    for name, shape in network.tensors().items():
        start = _START + hugging_face_name(name).removesuffix(".weight")
        first, second = f"{start}.lora_A.weight", f"{start}.lora_B.weight"
        if first not in weights.names() or second not in weights.names() or len(shape) != 2:
            continue
        if weights.shape(first) != (rank, shape[1]) or weights.shape(second) != (shape[0], rank):
            what = f"{folder}: its change of '{name}' does not fit the base's {list(shape)} with rank {rank}"
            raise InputError(what, "give the base model that the adapter was trained on")
        found[name] = (first, second)
    left = sorted(weights.names() - {name for pair in found.values() for name in pair})
    if left:
        what = f"{folder} changes '{left[0]}', which the base does not have"
        raise InputError(what, "give the base model that the adapter was trained on")
    if "token_embd.weight" in found:
        raise InputError(f"{folder} changes the embedding", "merge it where it was trained: merge_and_unload()")
    return found
