"""Compute the scores of the source: a forward pass in numpy, layer by layer, so that a model of any size can be run.

The tests compare it with transformers, which is used instead if it is installed and the model fits in memory. Queries
and keys are rotated in the source's own order, because the proof checks how the conversion reorders them.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from converters.gguf.hyperparameters import Network, frequency_factors
from converters.gguf.lora import Lora
from converters.gguf.model_config import ModelConfig
from converters.gguf.model_parts import ModelParts
from converters.gguf.weights import wanted_size
from converters.library_calls import loading
from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.llm.llama_cpp.memory import free_memory

_BETA_FAST, _BETA_SLOW = 32.0, 1.0  # of yarn; folders with other values are rejected
# transformers stores the model once, and parts of it twice while loading; larger models would take hours.
_MAX_WEIGHTS = 3_000_000_000


def source_scores(model: ModelParts, texts: list[list[int]]) -> tuple[list[Array], str]:
    """Compute the scores of the next token after each token of each text, float32 [tokens, vocabulary].

    Also returns the program that computed them: "transformers" or "numpy".
    """
    if model.folder is not None and has_transformers() and fits_in_memory(wanted_size(model.network.tensors())):
        return transformers_scores(model.folder, texts, model.adapter), "transformers"
    return _numpy(model, texts), "numpy"


def has_transformers() -> bool:
    """Return whether transformers is installed in this Python."""
    return all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


def check_in_transformers(folder: Path, config: ModelConfig) -> None:
    """Raise InputError if transformers does not have the model, so that there is nothing to compare with."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    model_type = config.get("model_type")
    if model_type is not None and model_type not in CONFIG_MAPPING_NAMES:
        what = f"{folder} is {config.architecture}, and transformers does not have its model type {model_type}"
        hint = "edge proves each conversion against transformers, and never runs Python code from a model's folder"
        raise InputError(f"{what}, so the result could not be proven", hint)


def fits_in_memory(weights: int) -> bool:
    """Return whether transformers can load this many weights in single precision here, and run in a reasonable time."""
    free = free_memory()
    return weights < _MAX_WEIGHTS and (free is None or 8 * weights < free)


def transformers_scores(folder: Path, texts: list[list[int]], adapter: Path | None = None) -> list[Array]:
    """Compute the scores of `source_scores` with transformers, without running code from the folder.

    An adapter is applied at run time instead of being merged, unlike in the conversion.
    """
    with loading(folder, "a Hugging Face model"):
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        named: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "dtype": torch.float32}
        try:
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, **named)
        except ValueError:  # a multimodal model
            model = transformers.AutoModelForImageTextToText.from_pretrained(folder, **named)
        model.eval()
        if adapter is not None:
            apply_adapter(model, adapter)
        with torch.no_grad():
            return [model(torch.tensor([tokens])).logits[0].float().numpy() for tokens in texts]


def apply_adapter(model: Any, adapter: Path) -> None:
    """Apply a LoRA to a model of transformers: the adapter's output is added to that of each module."""
    import torch

    lora = Lora(adapter)
    parameters = dict(model.named_parameters())
    for name, change in lora.changes.items():
        if "whole" in change.parts:
            with torch.no_grad():
                parameters[name].copy_(torch.from_numpy(lora.part(change, "whole")))
            continue
        module = model.get_submodule(name.removesuffix(".weight"))
        loaded = {which: torch.from_numpy(lora.part(change, which)) for which in change.parts}
        module.register_forward_hook(_adding_hook(loaded, change.scale, lora.is_transposed))


def _adding_hook(loaded: Mapping[str, Any], scale: float, is_transposed: bool) -> Any:
    """Return a hook that adds the output of a LoRA; for DoRA it also rescales the rows."""
    import torch

    def hook(module: Any, inputs: tuple[Any, ...], output: Any) -> Any:
        if "embedding_a" in loaded:
            return output + scale * loaded["embedding_a"].T[inputs[0]] @ loaded["embedding_b"].T
        change = scale * (inputs[0] @ loaded["a"].T) @ loaded["b"].T
        if "magnitude" not in loaded:
            return output + change
        weight = module.weight.T if is_transposed else module.weight
        lengths = torch.linalg.norm(weight + scale * loaded["b"] @ loaded["a"], dim=1)
        bias = 0 if module.bias is None else module.bias
        return (output - bias + change) * loaded["magnitude"].flatten() / lengths + bias

    return hook


def _numpy(model: ModelParts, texts: list[list[int]]) -> list[Array]:
    network, load = model.network, model.weights.load
    table = load("token_embd.weight")
    signals = [table[tokens] for tokens in texts]
    table = table if network.tied else table[:0]  # frees its memory for the layers
    for layer in range(network.layers):
        part = _layer(model, layer)
        signals = [_block(network, part, signal) for signal in signals]
    final = load("output_norm.weight")
    rows = table if network.tied else load("output.weight")
    return [_normalize(signal, final, network.epsilon) @ rows.T for signal in signals]


def _layer(model: ModelParts, layer: int) -> dict[str, Array]:
    start = f"blk.{layer}."
    names = [name for name in model.network.tensors() if name.startswith(start)]
    return {name[len(start) :]: model.weights.load(name) for name in names}


def _block(network: Network, part: dict[str, Array], signal: Array) -> Array:
    signal = signal + _attention(network, part, _normalize(signal, part["attn_norm.weight"], network.epsilon))
    inner = _normalize(signal, part["ffn_norm.weight"], network.epsilon)
    gate = inner @ part["ffn_gate.weight"].T
    with np.errstate(over="ignore"):  # exp of a very negative gate overflows, and 1 / infinity is the correct 0
        gate = gate / (1 + np.exp(-gate))
    found: Array = signal + (gate * (inner @ part["ffn_up.weight"].T)) @ part["ffn_down.weight"].T
    return found


def _attention(network: Network, part: dict[str, Array], signal: Array) -> Array:
    length, group = len(signal), network.heads // network.kv_heads
    queries, keys, values = (_project(network, part, signal, name) for name in ("attn_q", "attn_k", "attn_v"))
    keys, values = np.repeat(keys, group, axis=0), np.repeat(values, group, axis=0)
    scores = queries @ keys.transpose(0, 2, 1) / math.sqrt(network.head)
    distance = np.arange(length)[:, None] - np.arange(length)[None, :]
    mask = (distance >= 0) & (distance < (network.window or length))
    scores = np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed = (weights @ values).transpose(1, 0, 2).reshape(length, -1)
    found: Array = mixed @ part["attn_output.weight"].T + part.get("attn_output.bias", np.float32(0))
    return found


def _project(network: Network, part: dict[str, Array], signal: Array, name: str) -> Array:
    """Return queries, keys or values: [heads, length, head], the first two rotated."""
    found = signal @ part[f"{name}.weight"].T + part.get(f"{name}.bias", np.float32(0))
    found = found.reshape(len(signal), -1, network.head)
    if f"{name}_norm.weight" in part:
        found = _normalize(found, part[f"{name}_norm.weight"], network.epsilon)
    found = found.transpose(1, 0, 2)
    return found if name == "attn_v" else _rotate(network, found)


def _rotate(network: Network, values: Array) -> Array:
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
    """Return the rotations' frequencies [head / 2], and the factor of queries and keys.

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


def _normalize(values: Array, weight: Array, epsilon: float) -> Array:
    found: Array = values / np.sqrt(np.square(values).mean(axis=-1, keepdims=True) + epsilon) * weight
    return found
