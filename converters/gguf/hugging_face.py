"""A Hugging Face folder's config.json as a `Network`, and its tensors by their names in GGUF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from converters.gguf.network import LARGEST_SIZE, MOST_LAYERS, Network, RopeScaling
from converters.gguf.weights import Weights, read_json
from runtimes.errors import InputError
from runtimes.fields import Fields

_LARGEST_CONFIG = 2**22
# Architecture in config.json → llama.cpp's. LlamaForCausalLM is also TinyLlama, SmolLM, Yi, Vicuna, CodeLlama, ...
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "LLaMAForCausalLM": "llama",  # as the first conversions of 2023 wrote it
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
_KNOWN = (
    "what works: LLaMA 1 to 3 and all that is built as they are (TinyLlama, SmolLM, Yi, Vicuna), Mistral, Qwen 2 and 3"
)
_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}


def is_language_model(folder: Path) -> bool:
    """Whether a folder's config.json names a network that continues text."""
    config = folder / "config.json"
    if not config.is_file():
        return False
    names = read_json(config, _LARGEST_CONFIG).get("architectures")
    return isinstance(names, list) and any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)


def check_architecture(folder: Path) -> str:
    """The name of the folder's architecture; InputError, with the list of what works, for one that is not converted."""
    names = read_json(folder / "config.json", _LARGEST_CONFIG).get("architectures")
    name = str(names[0]) if isinstance(names, list) and names else "no architecture"
    if name not in ARCHITECTURES:
        raise InputError(f"{folder} is {name}, which is not converted to gguf", _KNOWN)
    return name


def read_network(folder: Path, weights: Weights) -> Network:
    """The network that config.json tells; InputError for one that is not converted, and for sizes that are none."""
    path = folder / "config.json"
    config = read_json(path, _LARGEST_CONFIG)
    fields = Fields(config, str(path))
    name = check_architecture(folder)
    _check_plain(config, name, path)
    width, heads = _size(fields, "hidden_size"), _size(fields, "num_attention_heads")
    if not fields.has("head_dim") and width % heads:
        raise fields.reject("num_attention_heads", f"is {heads}, which does not divide {width}")
    qwen2 = name == "Qwen2ForCausalLM"
    return Network(
        architecture=ARCHITECTURES[name],
        layers=_size(fields, "num_hidden_layers", MOST_LAYERS),
        width=width,
        hidden=_size(fields, "intermediate_size"),
        heads=heads,
        kv_heads=_size(fields, "num_key_value_heads") if fields.has("num_key_value_heads") else heads,
        head=_size(fields, "head_dim") if fields.has("head_dim") else width // heads,
        vocabulary=_rows(weights, fields),
        context=_size(fields, "max_position_embeddings") if fields.has("max_position_embeddings") else 2048,
        epsilon=fields.number("rms_norm_eps") if fields.has("rms_norm_eps") else 1e-6,
        rope_base=_rope_base(config),
        halves=True,
        tied="lm_head.weight" not in weights.names(),
        scaling=_scaling(config, path),
        attention_bias=qwen2 or bool(config.get("attention_bias")),
        output_bias=bool(config.get("attention_bias")) and not qwen2,
        qk_norm=name == "Qwen3ForCausalLM",
        window=_window(config, qwen2 or name == "Qwen3ForCausalLM"),
    )


def hugging_face_name(name: str) -> str:
    """The source's name of a tensor that GGUF calls `name`."""
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, ending = name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{ending}"


def _check_plain(config: Mapping[str, Any], name: str, path: Path) -> None:
    """Refuse what changes the arithmetic and has no place in this conversion."""
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise InputError(f"{path}: {name} with the activation {config['hidden_act']} is not converted", _KNOWN)
    if config.get("mlp_bias"):
        raise InputError(f"{path}: {name} with biases in its feed-forward part is not converted", _KNOWN)
    if config.get("quantization_config"):
        raise InputError(f"{path}: the model is quantised already", "give the model before it was quantised")
    if name.startswith("Qwen") and name != "Qwen2ForCausalLM" and config.get("attention_bias"):
        raise InputError(f"{path}: {name} with biases in its attention is not converted", _KNOWN)


def _size(fields: Fields, key: str, most: int = LARGEST_SIZE) -> int:
    value = fields.whole(key)
    if not 1 <= value <= most:
        raise fields.reject(key, f"is {value}, not between 1 and {most}")
    return value


def _rows(weights: Weights, fields: Fields) -> int:
    """The vocabulary as the embedding has it: after fine-tuning with new tokens config.json is often the older."""
    name = _OUTER["token_embd.weight"]
    if name in weights.names() and len(weights.shape(name)) == 2:
        return weights.shape(name)[0]
    return _size(fields, "vocab_size")


def _rope(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What is said of the rotation: transformers 5 keeps all of it in `rope_parameters`."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return found if isinstance(found, dict) else {}


def _rope_base(config: Mapping[str, Any]) -> float:
    found = _rope(config).get("rope_theta", config.get("rope_theta", 10000.0))
    return float(found) if isinstance(found, (int, float)) and found > 0 else 10000.0


def _scaling(config: Mapping[str, Any], path: Path) -> RopeScaling | None:
    said = _rope(config)
    kind = said.get("rope_type", said.get("type", "default"))
    if kind in ("default", None) or not said:
        return None
    if kind not in ("llama3", "linear", "yarn"):
        what = f"{path}: positions are stretched by '{kind}', which is not converted"
        raise InputError(what, "what works: llama3, linear and yarn")
    fields = Fields(dict(said), str(path), "rope_scaling")
    factor = fields.number("factor")
    if not 0 < factor < 1e6:
        raise fields.reject("factor", f"is {factor}")
    if kind == "yarn" and any(said.get(key) is not None for key in ("attention_factor", "mscale", "mscale_all_dim")):
        raise InputError(f"{path}: yarn with a temperature of its own is not converted", "what works: plain yarn")
    original = said.get("original_max_position_embeddings") or config.get("max_position_embeddings") or 0
    if kind == "llama3":
        return RopeScaling(
            kind, factor, int(original), fields.number("low_freq_factor"), fields.number("high_freq_factor")
        )
    return RopeScaling(kind, factor, int(original) if kind == "yarn" else 0)


def _window(config: Mapping[str, Any], is_switched: bool) -> int | None:
    """The sliding window; Qwen has a switch beside it."""
    window = config.get("sliding_window")
    if not isinstance(window, int) or window < 1 or (is_switched and not config.get("use_sliding_window")):
        return None
    return window
