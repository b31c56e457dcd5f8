"""Compute RWKV 6 and 7 in numpy, token by token, as the reference of a conversion: transformers has neither.

Sources: "Eagle and Finch" (arXiv 2404.05892) and "RWKV-7 Goose" (arXiv 2503.14456); tensor names as in the folders
RWKV/v6-Finch-1B6-HF and fla-hub/rwkv7-1.5B-world on Hugging Face.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from converters.gguf.model_config import ModelConfig
from converters.gguf.weights import Weights
from runtimes.arrays import Array

VERSIONS = {"Rwkv6ForCausalLM": 6, "Rwkv7ForCausalLM": 7, "RWKV7ForCausalLM": 7}
_GROUP_EPSILON = 64e-5
_DECAY = -0.606531  # -exp(-0.5)
Load = Callable[[str], Array]


def rwkv_scores(weights: Weights, config: ModelConfig, version: int, texts: list[list[int]]) -> list[Array]:
    """Compute the scores of the next token after each token of each text, float32 [tokens, vocabulary]."""
    names = (
        ("rwkv.embeddings.weight", "rwkv.blocks.{}.", "pre_ln", "rwkv.ln_out", "head.weight")
        if version == 6
        else ("model.embeddings.weight", "model.layers.{}.", "pre_norm", "model.norm", "lm_head.weight")
    )
    table, prefix, first_norm, last_norm, head = names
    epsilon = float(config.get("layer_norm_epsilon", config.get("norm_eps", 1e-5)))
    size = int(config.get("head_size", config.get("head_dim", 64)))
    embedding = weights.load(table)
    signals: list[Array] = [embedding[tokens].astype(np.float64) for tokens in texts]
    first_values: list[Array | None] = [None] * len(texts)
    for layer in range(int(config.get("num_hidden_layers"))):
        load = _loader(weights, prefix.format(layer))
        for place, signal in enumerate(signals):
            if layer == 0:
                signal = _normalize(signal, load, first_norm, epsilon)
            if version == 6:
                signals[place] = _block_6(signal, load, size, epsilon)
            else:
                signals[place], first_values[place] = _block_7(signal, load, size, epsilon, first_values[place])
    load = _loader(weights, "")
    return [(_normalize(signal, load, last_norm, epsilon) @ load(head).T).astype(np.float32) for signal in signals]


def _loader(weights: Weights, prefix: str) -> Load:
    return lambda name: weights.load(prefix + name).astype(np.float64)


def _block_6(signal: Array, load: Load, size: int, epsilon: float) -> Array:
    attention: Load = lambda name: load(f"attention.{name}")  # noqa: E731
    x = _normalize(signal, load, "ln1", epsilon)
    back = _shift(x) - x
    mixed = np.tanh((x + back * attention("time_maa_x").ravel()) @ attention("time_maa_w1"))
    mixed = np.einsum("tfd,fdh->fth", mixed.reshape(len(x), 5, -1), attention("time_maa_w2"))
    xw, xk, xv, xr, xg = (
        x + back * (attention(f"time_maa_{name}").ravel() + one) for name, one in zip("wkvrg", mixed, strict=True)
    )
    decay = attention("time_decay").ravel() + np.tanh(xw @ attention("time_decay_w1")) @ attention("time_decay_w2")
    r, k, v, w = (
        one.reshape(len(x), -1, size)
        for one in (
            xr @ attention("receptance.weight").T,
            xk @ attention("key.weight").T,
            xv @ attention("value.weight").T,
            np.exp(-np.exp(decay)),
        )
    )
    gate = xg @ attention("gate.weight").T
    bonus = attention("time_faaaa").reshape(-1, size)
    state, found = np.zeros((r.shape[1], size, size)), np.empty_like(r)
    for t in range(len(x)):
        added = k[t][:, :, None] * v[t][:, None, :]
        found[t] = np.einsum("hi,hij->hj", r[t], state + bonus[:, :, None] * added)
        state = w[t][:, :, None] * state + added
    out = _group_normed(found, attention, "ln_x") * (gate * _sigmoid(gate))
    signal = signal + out @ attention("output.weight").T
    x = _normalize(signal, load, "ln2", epsilon)
    back = _shift(x) - x
    feed: Load = lambda name: load(f"feed_forward.{name}")  # noqa: E731
    key = np.maximum((x + back * feed("time_maa_k").ravel()) @ feed("key.weight").T, 0) ** 2
    receptance = _sigmoid((x + back * feed("time_maa_r").ravel()) @ feed("receptance.weight").T)
    answer: Array = signal + receptance * (key @ feed("value.weight").T)
    return answer


def _block_7(
    signal: Array, load: Load, size: int, epsilon: float, first_values: Array | None
) -> tuple[Array, Array | None]:
    attention: Load = lambda name: load(f"attn.{name}")  # noqa: E731
    x = _normalize(signal, load, "attn_norm", epsilon)
    back = _shift(x) - x
    xr, xw, xk, xv, xa, xg = (x + back * attention(f"x_{name}").ravel() for name in "rwkvag")
    r, k, v = (one @ attention(f"{name}_proj.weight").T for one, name in ((xr, "r"), (xk, "k"), (xv, "v")))
    w = np.exp(_DECAY * _sigmoid(_low_rank(xw, attention, "w", np.tanh)))
    if first_values is None:
        first_values = v
    else:
        v = v + (first_values - v) * _sigmoid(_low_rank(xv, attention, "v"))
    rate = _sigmoid(_low_rank(xa, attention, "a"))
    gate = _low_rank(xg, attention, "g", _sigmoid, has_bias=False)
    removal = (k * attention("k_k").ravel()).reshape(len(x), -1, size)
    removal = removal / np.maximum(np.linalg.norm(removal, axis=-1, keepdims=True), 1e-12)
    k = k * (1 + (rate - 1) * attention("k_a").ravel())
    r, k, v, w, rate = (one.reshape(len(x), -1, size) for one in (r, k, v, w, rate))
    state, found = np.zeros((r.shape[1], size, size)), np.empty_like(r)
    for t in range(len(x)):
        read = np.einsum("hvk,hk->hv", state, -removal[t])
        state = state * w[t][:, None, :] + read[:, :, None] * (removal[t] * rate[t])[:, None, :]
        state = state + v[t][:, :, None] * k[t][:, None, :]
        found[t] = np.einsum("hvk,hk->hv", state, r[t])
    bonus = (r * k * attention("r_k").reshape(-1, size)).sum(-1, keepdims=True) * v
    out = (_group_normed(found, attention, "g_norm") + bonus.reshape(len(x), -1)) * gate
    signal = signal + out @ attention("o_proj.weight").T
    x = _normalize(signal, load, "ffn_norm", epsilon)
    mixed = x + (_shift(x) - x) * load("ffn.x_k").ravel()
    answer: Array = signal + np.maximum(mixed @ load("ffn.key.weight").T, 0) ** 2 @ load("ffn.value.weight").T
    return answer, first_values


def _low_rank(
    x: Array, load: Load, name: str, activation: Callable[[Array], Array] = lambda one: one, has_bias: bool = True
) -> Array:
    found: Array = activation(x @ load(f"{name}_lora.lora.0.weight").T) @ load(f"{name}_lora.lora.2.weight").T
    return found + load(f"{name}_lora.lora.2.bias") if has_bias else found


def _shift(x: Array) -> Array:
    """Return the signal of the previous token; zeros for the first token."""
    return np.concatenate([np.zeros_like(x[:1]), x[:-1]])


def _normalize(x: Array, load: Load, name: str, epsilon: float) -> Array:
    found: Array = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + epsilon)
    return found * load(f"{name}.weight") + load(f"{name}.bias")


def _group_normed(heads: Array, load: Load, name: str) -> Array:
    """Normalize each head [tokens, heads, size] to mean 0 and variance 1, and return [tokens, width]."""
    found = (heads - heads.mean(-1, keepdims=True)) / np.sqrt(heads.var(-1, keepdims=True) + _GROUP_EPSILON)
    flat: Array = found.reshape(len(heads), -1) * load(f"{name}.weight") + load(f"{name}.bias")
    return flat


def _sigmoid(x: Array) -> Array:
    found: Array = 1 / (1 + np.exp(-x))
    return found
