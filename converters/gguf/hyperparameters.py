"""The hyperparameters of a decoder of the LLaMA family, and the names of its tensors in a GGUF file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runtimes.arrays import Array

# Limits of the sizes in a configuration: far above any model, and low enough that computing with them cannot overflow.
MAX_LAYERS, MAX_SIZE = 1024, 2**24


@dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How positions are scaled: `kind` llama3, linear or yarn, by `factor` from a context of `original` tokens."""

    kind: str
    factor: float
    original: int = 0
    low_frequency: float = 1.0
    high_frequency: float = 4.0


@dataclass(frozen=True, kw_only=True)
class Network:
    """The hyperparameters of a decoder.

    architecture: llama.cpp's name: llama, qwen2 or qwen3.
    halves: Whether queries and keys are rotated in halves (Hugging Face), instead of adjacent pairs (Meta, llama2.c).
    window: The sliding window of the attention, in tokens; None attends to all.
    """

    architecture: str
    layers: int
    width: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    context: int
    epsilon: float
    rope_base: float
    halves: bool
    tied: bool
    scaling: RopeScaling | None = None
    attention_bias: bool = False
    output_bias: bool = False
    qk_norm: bool = False
    window: int | None = None

    @property
    def usable_context(self) -> int:
        """The longest context for which llama.cpp, which has no sliding window here, computes the same."""
        return min(self.context, self.window) if self.window else self.context

    @property
    def permuted(self) -> bool:
        """Whether llama.cpp expects adjacent pairs although the source has halves: only its `llama` does."""
        return self.halves and self.architecture == "llama"

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of every tensor by its name in GGUF, in numpy's axis order, in the file's order."""
        shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (self.vocabulary, self.width)}
        for layer in range(self.layers):
            shapes |= {f"blk.{layer}.{name}": shape for name, shape in self._layer().items()}
        shapes["output_norm.weight"] = (self.width,)
        if not self.tied:
            shapes["output.weight"] = (self.vocabulary, self.width)
        return shapes

    def _layer(self) -> dict[str, tuple[int, ...]]:
        queries, keys = self.heads * self.head, self.kv_heads * self.head
        shapes: dict[str, tuple[int, ...]] = {
            "attn_norm.weight": (self.width,),
            "attn_q.weight": (queries, self.width),
            "attn_k.weight": (keys, self.width),
            "attn_v.weight": (keys, self.width),
            "attn_output.weight": (self.width, queries),
        }
        if self.attention_bias:
            shapes |= {"attn_q.bias": (queries,), "attn_k.bias": (keys,), "attn_v.bias": (keys,)}
        if self.output_bias:
            shapes["attn_output.bias"] = (self.width,)
        if self.qk_norm:
            shapes |= {"attn_q_norm.weight": (self.head,), "attn_k_norm.weight": (self.head,)}
        return shapes | {
            "ffn_norm.weight": (self.width,),
            "ffn_gate.weight": (self.hidden, self.width),
            "ffn_up.weight": (self.hidden, self.width),
            "ffn_down.weight": (self.width, self.hidden),
        }


def rotation_heads(network: Network, name: str) -> int | None:
    """Return the number of heads over which the rows of a tensor are rotated; None except for queries and keys."""
    part = name.rpartition("blk.")[2].partition(".")[2]
    return {"attn_q": network.heads, "attn_k": network.kv_heads}.get(part.partition(".")[0])


def pair_up(values: Array, heads: int) -> Array:
    """Reorder rows [heads × head, ...] that are rotated in halves, so that adjacent pairs are rotated."""
    return np.ascontiguousarray(
        values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    )


def frequency_factors(network: Network) -> Array | None:
    """Return the factor by which each rotation is slowed down, [head / 2]; None except for `llama3`.

    Source: `_compute_llama3_parameters` of transformers/modeling_rope_utils.py.
    """
    scaling = network.scaling
    if scaling is None or scaling.kind != "llama3":
        return None
    frequencies = network.rope_base ** -(np.arange(0, network.head, 2, dtype=np.float64) / network.head)
    lengths = 2 * np.pi / frequencies
    share = (scaling.original / lengths - scaling.low_frequency) / (scaling.high_frequency - scaling.low_frequency)
    blended = 1 / ((1 - share) / scaling.factor + share)
    slow, quick = scaling.original / scaling.low_frequency, scaling.original / scaling.high_frequency
    return np.where(lengths > slow, scaling.factor, np.where(lengths < quick, 1.0, blended)).astype(np.float32)


def describe(network: Network) -> Mapping[str, int | float | str]:
    """Return the network's entries in a GGUF's metadata, without the architecture's prefix."""
    entries: dict[str, int | float | str] = {
        "context_length": network.usable_context,
        "embedding_length": network.width,
        "block_count": network.layers,
        "feed_forward_length": network.hidden,
        "attention.head_count": network.heads,
        "attention.head_count_kv": network.kv_heads,
        "attention.key_length": network.head,
        "attention.value_length": network.head,
        "attention.layer_norm_rms_epsilon": network.epsilon,
        "rope.dimension_count": network.head,
        "rope.freq_base": network.rope_base,
        "vocab_size": network.vocabulary,
    }
    if network.scaling and network.scaling.kind in ("linear", "yarn"):
        entries |= {"rope.scaling.type": network.scaling.kind, "rope.scaling.factor": network.scaling.factor}
        if network.scaling.original:
            entries["rope.scaling.original_context_length"] = network.scaling.original
    return entries
