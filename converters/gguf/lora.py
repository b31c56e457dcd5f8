"""Read a PEFT LoRA folder, merge it into its base's weights, or rewrite it for llama.cpp's converter.

The kinds of changes are defined in src/peft/tuners/lora/layer.py and dora.py of github.com/huggingface/peft.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from converters.gguf.staging import stage
from converters.gguf.weights import SafetensorsFolder, float_entry, read_json, write_header
from runtimes.arrays import Array
from runtimes.artifact.json_fields import Fields
from runtimes.errors import InputError

CONFIG = "adapter_config.json"
_PIECE = 2**24  # bytes that are copied at a time
_START = "base_model.model."
_ENDINGS = {
    ".lora_A.weight": "a",
    ".lora_B.weight": "b",
    ".lora_embedding_A": "embedding_a",
    ".lora_embedding_B": "embedding_b",
    ".lora_magnitude_vector.weight": "magnitude",
    ".lora_magnitude_vector": "magnitude",
}
# Settings that are rejected → the reason.
_REFUSED = {
    "layer_replication": "it adds layers that the base does not have",
    "trainable_token_indices": "it changes single rows of the embedding without LoRA",
    "target_parameters": "it changes parameters that are not a module's weight",
    "lora_bias": "its factors have biases",
    "alora_invocation_tokens": "it is only active in a part of a text",
}
_MERGE_THERE = "merge it where it was trained: merge_and_unload()"
_MERGE_HERE = "merge it: edge convert BASE --to gguf --lora ADAPTER"


@dataclass(frozen=True, kw_only=True)
class Change:
    """How an adapter changes one weight.

    Attributes:
        parts: Names of the adapter's tensors by role: a and b, embedding_a and embedding_b, magnitude, whole.
        scale: The factor of the product of a and b.
        rank: Their rank.
    """

    parts: Mapping[str, str]
    scale: float = 1.0
    rank: int = 0

    @property
    def is_low_rank(self) -> bool:
        """Whether it only has two factors."""
        return set(self.parts) in ({"a", "b"}, {"embedding_a", "embedding_b"})


class Lora:
    """The changes of an adapter, by the name of the base's module or weight."""

    def __init__(self, folder: Path) -> None:
        path = folder / CONFIG
        config = read_json(path, 2**22)
        if str(config.get("peft_type", "LORA")).upper() != "LORA":
            raise InputError(f"{folder} is an adapter of the type {config['peft_type']}", "what works: LORA")
        for key, reason in _REFUSED.items():
            if config.get(key):
                raise InputError(f"{path}: '{key}' is not supported, because {reason}", _MERGE_THERE)
        self.folder, self.config = folder, config
        self.is_transposed = bool(config.get("fan_in_fan_out"))
        self.weights = SafetensorsFolder(folder, "adapter_model")
        self.changes = self._changes(Fields(config, str(path)))

    @property
    def rank(self) -> int:
        """The largest rank of its changes."""
        return max((change.rank for change in self.changes.values()), default=0)

    def part(self, change: Change, which: str) -> Array:
        """Load one of a change's tensors."""
        return self.weights.load(change.parts[which])

    def applied(self, change: Change, weight: Array, name: str) -> Array:
        """Return `weight` with the change applied."""
        if "whole" in change.parts:
            return self._fitting(self.part(change, "whole"), weight, name)
        if "embedding_a" in change.parts:
            product = (self.part(change, "embedding_b") @ self.part(change, "embedding_a")).T
        else:
            product = self.part(change, "b") @ self.part(change, "a")
            product = product.T if self.is_transposed else product
        changed = weight + np.float32(change.scale) * self._fitting(product, weight, name)
        if "magnitude" in change.parts:  # DoRA trains the direction and the length of each row separately
            axis = 0 if self.is_transposed else 1
            lengths = np.linalg.norm(changed, axis=axis, keepdims=True)
            changed = changed / lengths * self.part(change, "magnitude").reshape(lengths.shape)
        return np.asarray(changed, np.float32)

    def _fitting(self, values: Array, weight: Array, name: str) -> Array:
        if values.shape != weight.shape:
            what = f"{self.folder}: its change of '{name}' has the shape {list(values.shape)}, the base's weight"
            hint = "use the base model that the adapter was trained on; with new tokens, merge it where it was trained"
            raise InputError(f"{what} {list(weight.shape)}", hint)
        return values

    def _changes(self, fields: Fields) -> dict[str, Change]:
        grouped: dict[str, dict[str, str]] = {}
        for name in sorted(self.weights.names()):
            ending = next((one for one in _ENDINGS if name.endswith(one)), None)
            module = name.removeprefix(_START).replace(".base_layer", "").replace(".modules_to_save.default", "")
            if ending is None:
                grouped.setdefault(module, {})["whole"] = name
            else:
                grouped.setdefault(f"{module.removesuffix(ending)}.weight", {})[_ENDINGS[ending]] = name
        return {name: self._change(name, parts, fields) for name, parts in grouped.items()}

    def _change(self, name: str, parts: dict[str, str], fields: Fields) -> Change:
        if "whole" in parts:
            return Change(parts={"whole": parts["whole"]})
        first = parts.get("a") or parts.get("embedding_a")
        second = parts.get("b") or parts.get("embedding_b")
        if first is None or second is None:
            what = f"{self.folder} has only one of the two factors (lora_A and lora_B) of '{name}'"
            raise InputError(what, "save the adapter again where it was trained")
        rank = self.weights.shape(first)[0]
        alpha = _by_pattern(self.config.get("alpha_pattern"), name, fields.number("lora_alpha"))
        if rank < 1 or self.weights.shape(second)[1] != rank or not math.isfinite(alpha):
            raise fields.reject("r", f"is {rank} for '{name}', with lora_alpha {alpha}")
        return Change(
            parts=parts, rank=rank, scale=alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)
        )


def merge(base: Path, adapter: Path, place: Path) -> Path:
    """Create the folder `place` with the adapter merged into the base. Files without a changed weight are linked."""
    lora, stored = Lora(adapter), SafetensorsFolder(base)
    targets = {_stored_name(name, stored.names(), adapter): change for name, change in lora.changes.items()}
    stage(base, place, renewed=False)
    for file in sorted({stored.place(name).file for name in targets}):
        tensors = {name: stored.place(name) for name in sorted(stored.names()) if stored.place(name).file == file}
        (place / file.name).unlink()
        with (place / file.name).open("wb") as stream, file.open("rb") as source:
            write_header(
                stream,
                {
                    name: float_entry(one.shape) if name in targets else (one.shape, one.type, one.end - one.start)
                    for name, one in tensors.items()
                },
            )
            for name, one in tensors.items():
                if name in targets:
                    stream.write(lora.applied(targets[name], stored.load(name), name).astype("<f4").tobytes())
                else:
                    source.seek(one.start)
                    _copy(source, stream, one.end - one.start)
    return place


def write_plain(lora: Lora, place: Path) -> Path:
    """Create the folder `place` with the adapter rewritten to a single strength, as in llama.cpp's adapters.

    Raises InputError for changes that an adapter of llama.cpp cannot contain.
    """
    alpha = Fields(lora.config, str(lora.folder)).number("lora_alpha")
    for name, change in lora.changes.items():
        if not change.is_low_rank or lora.is_transposed:
            why = "a whole weight" if "whole" in change.parts else "more than two factors, or transposed ones"
            raise InputError(
                f"{lora.folder} changes '{name}' by {why}, which adapters of llama.cpp do not support", _MERGE_HERE
            )
    place.mkdir(parents=True)
    shapes: dict[str, tuple[int, ...]] = {}
    strengths: dict[str, float] = {}
    for change in lora.changes.values():
        for which, name in change.parts.items():
            shapes[name] = lora.weights.shape(name)
            strengths[name] = change.scale * change.rank / alpha if which.endswith("b") else 1.0
    with (place / "adapter_model.safetensors").open("wb") as stream:
        write_header(stream, {name: float_entry(shape) for name, shape in shapes.items()})
        for name in shapes:
            stream.write((np.float32(strengths[name]) * lora.weights.load(name)).astype("<f4").tobytes())
    plain = {"peft_type": "LORA", "r": lora.rank, "lora_alpha": alpha}
    (place / CONFIG).write_text(json.dumps(plain), encoding="utf-8")
    return place


def _stored_name(name: str, stored: set[str], adapter: Path) -> str:
    """Return the base's name of a weight: checkpoints of bare models lack its first part, or have an additional one."""
    if name in stored:
        return name
    short = name.partition(".")[2]
    matches = [one for one in stored if one == short or one.partition(".")[2] == name]
    if len(matches) != 1:
        what = f"{adapter} changes '{name}', which the base does not have"
        raise InputError(what, "use the base model that the adapter was trained on")
    return matches[0]


def _by_pattern(patterns: Any, name: str, otherwise: float) -> float:
    """Return a module's value: patterns are matched against the end of its name (`get_pattern_key` of peft)."""
    module = name.removesuffix(".weight")
    for pattern, value in (patterns or {}).items() if isinstance(patterns, dict) else ():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return float(value)
        except (re.error, TypeError, ValueError):
            what = f"{CONFIG}: the pattern {pattern!r} is not a valid regular expression with a number"
            raise InputError(what, "check alpha_pattern in that file") from None
    return otherwise


def _copy(source: BinaryIO, target: BinaryIO, count: int) -> None:
    while count > 0:
        piece = source.read(min(count, _PIECE))
        if not piece:
            raise InputError(
                "a file of the base became shorter while it was read", "convert it again when nothing writes it"
            )
        target.write(piece)
        count -= len(piece)
