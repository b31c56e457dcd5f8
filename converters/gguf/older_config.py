"""Rewrite the configuration of a folder of transformers 5 as in transformers 4, which llama.cpp's converter reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from runtimes.artifact.json_fields import JsonObject, JsonValue

# By model type: what transformers always computes and does not write into config.json, and the converter asks for.
_LEFT_OUT: dict[str, JsonObject] = {
    "cohere2": {"rotary_pct": 1.0},
    "deepseek_v3": {"scoring_func": "sigmoid"},
    "dots1": {"scoring_func": "sigmoid"},
    "glm4_moe_lite": {"scoring_func": "sigmoid"},
}
_EXPERTS = ("num_experts_per_tok", "n_routed_experts", "n_group", "topk_group")
_NEMOTRON_LAYERS = {
    **dict.fromkeys(("linear_attention", "mamba"), "M"),
    **dict.fromkeys(("full_attention", "attention"), "*"),
    "mlp": "-",
    "moe": "E",
}
# transformers' own names of architectures that the converter only knows by the names of their makers.
OTHER_NAMES = {"MptForCausalLM": "MPTForCausalLM"}
# Models that the converter knows by the class of their text part, and for pictures by their own.
_BY_TEXT_PART = (
    "Idefics3ForConditionalGeneration",
    "Lfm2VlForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
)
# The class of a text part that has only a `model_type`, as transformers saves it.
_TEXT_CLASSES = {
    "lfm2": "Lfm2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Tokenizer classes of transformers 5, which 4 does not have.
_GENERIC = (None, "TokenizersBackend", "PythonBackend")


def older_config(config: Mapping[str, JsonValue]) -> JsonObject:
    """Rewrite config.json as in transformers 4: with separate `rope_theta` and `rope_scaling`, and `torch_dtype`."""
    found = {
        key: older_config(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in config.items()
    }
    if "dtype" in found:
        found.setdefault("torch_dtype", found.pop("dtype"))
    if found.get("multi_query") is True and found.get("new_decoder_architecture") is False:
        found["num_kv_heads"] = 1  # transformers 5 writes the number of heads, but the first Falcons share one
    rope = found.pop("rope_parameters", None)
    if isinstance(rope, dict):
        found |= _older_rope(rope, str(found.get("model_type")))
    model_type = str(found.get("model_type"))
    adapted = {**_by_first_layers(found), **(_ADAPTED[model_type](found) if model_type in _ADAPTED else {})}
    found |= {key: value for key, value in adapted.items() if value is not None}
    found = {key: value for key, value in found.items() if adapted.get(key, "") is not None}
    found = {**_LEFT_OUT.get(model_type, {}), **found}
    names = found.get("architectures")
    if isinstance(names, list):
        found["architectures"] = [OTHER_NAMES.get(str(name), name) for name in names]
    if name := text_class(found):
        found["text_config"] = {**_object(found["text_config"]), "architectures": [name]}
    return found


def _by_first_layers(config: JsonObject) -> JsonObject:
    """Return how many layers have no experts, if only the first ones have none."""
    parts = config.get("mlp_layer_types")
    if not isinstance(parts, list) or parts != sorted(map(str, parts)):  # first "dense", then "sparse"
        return {}
    return {"first_k_dense_replace": parts.count("dense")}


def _gpt2(config: JsonObject) -> JsonObject:
    return {"n_ctx": config["n_positions"]} if "n_positions" in config and "n_ctx" not in config else {}


def _bamba(config: JsonObject) -> JsonObject:
    """Return the size of the rotated half of a head."""
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    return {"attn_rotary_emb": width // heads // 2} if isinstance(width, int) and isinstance(heads, int) else {}


def _granite_hybrid(config: JsonObject) -> JsonObject:
    """Return the names of layers in transformers 4, and the size of the feed-forward part without experts."""
    names = {"linear_attention": "mamba", "full_attention": "attention"}
    kinds, shared = config.get("layer_types"), config.get("shared_intermediate_size")
    found: JsonObject = {}
    if isinstance(kinds, list):
        found["layer_types"] = [names.get(str(kind), kind) for kind in kinds]
    if not config.get("num_local_experts") and shared is not None:
        found["intermediate_size"] = shared
    return found


def _hunyuan_moe(config: JsonObject) -> JsonObject:
    """Return lists of sizes by layer, where transformers has one size for all layers, and one shared expert."""
    usual = {"moe_topk": 1, "moe_intermediate_size": config.get("intermediate_size"), "num_shared_expert": 1}
    values = {key: config.get(key, value) for key, value in usual.items()}
    return {key: value if isinstance(value, list) else [value] for key, value in values.items()}


def _nemotron_hybrid(config: JsonObject) -> JsonObject:
    """Return the pattern of layers; without experts also no number of experts, by which they are recognized."""
    kinds = config.get("layers_block_type")
    if not isinstance(kinds, list):
        return {}
    pattern = "".join(_NEMOTRON_LAYERS.get(str(kind), "?") for kind in kinds)
    experts = {} if "E" in pattern else dict.fromkeys(_EXPERTS)
    return {"layers_block_type": None, "hybrid_override_pattern": pattern, "num_hidden_layers": len(kinds), **experts}


# By model type: the keys of transformers 5 in the form that the converter reads; None removes a key.
_ADAPTED: dict[str, Callable[[JsonObject], JsonObject]] = {
    "bamba": _bamba,
    "gpt2": _gpt2,
    "granitemoehybrid": _granite_hybrid,
    "hunyuan_v1_moe": _hunyuan_moe,
    "nemotron_h": _nemotron_hybrid,
}


def text_class(config: Mapping[str, JsonValue]) -> str:
    """Return the class of the text part of a model that sees pictures; empty for other models, and if it is unknown."""
    text, names = _object(config.get("text_config")), config.get("architectures")
    named = text.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    is_needed = isinstance(names, list) and bool(names) and names[0] in _BY_TEXT_PART
    return _TEXT_CLASSES.get(str(text.get("model_type")), "") if is_needed else ""


def _older_rope(rope: Mapping[str, JsonValue], model_type: str) -> JsonObject:
    if any(isinstance(one, dict) for one in rope.values()):  # by kind of layer, as in Gemma 3
        full, sliding = _object(rope.get("full_attention")), _object(rope.get("sliding_attention"))
        found = _older_rope(full, model_type) if full else {}
        return found | ({"rope_local_base_freq": sliding["rope_theta"]} if "rope_theta" in sliding else {})
    rest = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    found = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if rope.get(key) is not None}
    if model_type == "gpt_neox":
        names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        found |= {names[key]: value for key, value in found.items()}
    kind = rest.get("rope_type", rest.get("type", "default"))
    is_plain = kind in ("default", None) and "mrope_section" not in rest  # which Qwen-VL has
    return found | ({} if is_plain else {"rope_scaling": rest})


def older_tokenizer_config(config: Mapping[str, JsonValue], place: Path) -> JsonObject:
    """Rewrite tokenizer_config.json as in transformers 4."""
    found = dict(config)
    if found.get("tokenizer_class") in _GENERIC:
        found.pop("tokenizer_class", None)
        if (place / "tokenizer.json").is_file():
            found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(found.get("extra_special_tokens"), list):
        found.setdefault("additional_special_tokens", found.pop("extra_special_tokens"))
    return found


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, Mapping) else {}
