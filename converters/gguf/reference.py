"""What the source itself would answer: a forward pass in numpy, layer by layer, so that any model can be asked.

The tests hold it against transformers; where transformers is installed and the model fits in memory, that is asked
instead. Queries and keys are rotated in the source's own order: what the conversion does to them is what is proven.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import numpy as np

from converters.gguf.model import LanguageModel
from converters.gguf.network import Network, frequency_factors
from converters.gguf.weights import wanted_size
from converters.quiet import loading
from runtimes.arrays import Array
from runtimes.llama.memory import free_memory

_BETA_FAST, _BETA_SLOW = 32.0, 1.0  # yarn's, as every model has them
# transformers holds the model once, and while it loads some of it twice; above so many weights it takes hours.
_MOST_WEIGHTS = 3_000_000_000


def source_scores(model: LanguageModel, texts: list[list[int]]) -> tuple[list[Array], str]:
    """Scores of the next token after each token of each text, float32 [tokens, vocabulary]; and who computed them."""
    if model.folder is not None and _has_transformers() and _fits(model.network):
        return _transformers(model.folder, texts), "transformers"
    return _numpy(model, texts), "numpy"


def _has_transformers() -> bool:
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def _fits(network: Network) -> bool:
    count = wanted_size(network.tensors())
    free = free_memory()
    return count < _MOST_WEIGHTS and (free is None or 8 * count < free)


def _transformers(folder: Path, texts: list[list[int]]) -> list[Array]:
    with loading(folder, "a Hugging Face model"):
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        ).eval()
        with torch.no_grad():
            return [model(torch.tensor([tokens])).logits[0].float().numpy() for tokens in texts]


def _numpy(model: LanguageModel, texts: list[list[int]]) -> list[Array]:
    network, load = model.network, model.weights.load
    table = load("token_embd.weight")
    signals = [table[tokens] for tokens in texts]
    table = table if network.tied else table[:0]  # not held while the layers are
    for layer in range(network.layers):
        part = _layer(model, layer)
        signals = [_block(network, part, signal) for signal in signals]
    final = load("output_norm.weight")
    rows = table if network.tied else load("output.weight")
    return [_normed(signal, final, network.epsilon) @ rows.T for signal in signals]


def _layer(model: LanguageModel, layer: int) -> dict[str, Array]:
    start = f"blk.{layer}."
    names = [name for name in model.network.tensors() if name.startswith(start)]
    return {name[len(start) :]: model.weights.load(name) for name in names}


def _block(network: Network, part: dict[str, Array], signal: Array) -> Array:
    signal = signal + _attention(network, part, _normed(signal, part["attn_norm.weight"], network.epsilon))
    inner = _normed(signal, part["ffn_norm.weight"], network.epsilon)
    gate = inner @ part["ffn_gate.weight"].T
    with np.errstate(over="ignore"):  # exp of a very negative gate: 1 / infinity is the 0 that is meant
        gate = gate / (1 + np.exp(-gate))
    found: Array = signal + (gate * (inner @ part["ffn_up.weight"].T)) @ part["ffn_down.weight"].T
    return found


def _attention(network: Network, part: dict[str, Array], signal: Array) -> Array:
    length, group = len(signal), network.heads // network.kv_heads
    queries, keys, values = (_projected(network, part, signal, name) for name in ("attn_q", "attn_k", "attn_v"))
    keys, values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
    scores = queries @ keys.transpose(0, 2, 1) / math.sqrt(network.head)
    behind = np.arange(length)[:, None] - np.arange(length)[None, :]
    seen = (behind >= 0) & (behind < (network.window or length))
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = (weights @ values).transpose(1, 0, 2).reshape(length, -1)
    found: Array = mixed @ part["attn_output.weight"].T + part.get("attn_output.bias", np.float32(0))
    return found


def _projected(network: Network, part: dict[str, Array], signal: Array, name: str) -> Array:
    """Queries, keys or values: [heads, length, head], the first two rotated."""
    found = signal @ part[f"{name}.weight"].T + part.get(f"{name}.bias", np.float32(0))
    found = found.reshape(len(signal), -1, network.head)
    if f"{name}_norm.weight" in part:
        found = _normed(found, part[f"{name}_norm.weight"], network.epsilon)
    found = found.transpose(1, 0, 2)
    return found if name == "attn_v" else _rotated(network, found)


def _rotated(network: Network, values: Array) -> Array:
    frequencies, strength = _frequencies(network)
    angles = np.arange(values.shape[1])[:, None] * frequencies
    cosine, sine = (strength * np.cos(angles)).astype(np.float32), (strength * np.sin(angles)).astype(np.float32)
    half = network.head // 2
    pair = (np.s_[..., :half], np.s_[..., half:]) if network.halves else (np.s_[..., 0::2], np.s_[..., 1::2])
    turned = np.empty_like(values)
    turned[pair[0]] = values[pair[0]] * cosine - values[pair[1]] * sine
    turned[pair[1]] = values[pair[0]] * sine + values[pair[1]] * cosine
    return turned


def _frequencies(network: Network) -> tuple[Array, float]:
    """The rotations' frequencies [head / 2], and by what queries and keys are multiplied.

    Source: transformers/modeling_rope_utils.py.
    """
    plain: Array = network.rope_base ** -(np.arange(0, network.head, 2, dtype=np.float64) / network.head)
    scaling = network.scaling
    if scaling is None:
        return plain, 1.0
    if scaling.kind == "yarn":
        return _yarn(network, plain)
    factors = frequency_factors(network)
    return (plain / scaling.factor if factors is None else plain / factors), 1.0


def _yarn(network: Network, plain: Array) -> tuple[Array, float]:
    assert network.scaling is not None
    factor, original = network.scaling.factor, network.scaling.original

    def place(turns: float) -> float:
        return network.head * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(network.rope_base))

    low, high = max(math.floor(place(_BETA_FAST)), 0), min(math.ceil(place(_BETA_SLOW)), network.head - 1)
    ramp = np.clip((np.arange(network.head // 2) - low) / max(high - low, 0.001), 0, 1)
    return plain / factor * ramp + plain * (1 - ramp), 0.1 * math.log(factor) + 1.0 if factor > 1 else 1.0


def _normed(values: Array, weight: Array, epsilon: float) -> Array:
    found: Array = values / np.sqrt(np.square(values).mean(axis=-1, keepdims=True) + epsilon) * weight
    return found
