"""Read a Hugging Face folder's config.json as a `Network`, and map its tensors to their names in GGUF."""

from __future__ import annotations

from pathlib import Path

from converters.gguf.hyperparameters import MAX_LAYERS, MAX_SIZE, Network, RopeScaling
from converters.gguf.model_config import ModelConfig, read_config
from converters.gguf.support import WHAT_WORKS, check_architecture
from converters.gguf.tokenizer_json import is_sentencepiece, pre_of, read_tokenizer_file
from converters.gguf.weights import Weights
from runtimes.artifact.json_fields import Fields
from runtimes.errors import InputError

# Architecture in config.json → llama.cpp's. LlamaForCausalLM is also TinyLlama, SmolLM, Yi, Vicuna, CodeLlama, ...
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "LLaMAForCausalLM": "llama",  # as the first conversions of 2023 wrote it
    "MistralForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}
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


def is_plain(folder: Path) -> bool:
    """Return whether the folder is a LLaMA, Mistral, Qwen 2 or 3 without features that edge does not write itself.

    All other folders are converted by llama.cpp's converter.
    """
    config = read_config(folder)
    name, rope = config.architecture, config.rope
    return (
        name in ARCHITECTURES
        and config.get("hidden_act", "silu") in ("silu", "swish")
        and not config.get("mlp_bias")
        and not config.get("quantization_config")
        and (name in ("Qwen2ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM") or not config.get("attention_bias"))
        and rope.get("rope_type", rope.get("type", "default")) in ("default", None, "llama3", "linear", "yarn")
        and not any(rope.get(key) is not None for key in ("attention_factor", "mscale", "mscale_all_dim"))
        and bool(list(folder.glob("*.safetensors")))
        and _is_plain_tokenizer(folder)
    )


def _is_plain_tokenizer(folder: Path) -> bool:
    path = folder / "tokenizer.json"
    if not path.is_file():
        return (folder / "tokenizer.model").is_file()
    document = read_tokenizer_file(path)
    return is_sentencepiece(document) or pre_of(document) is not None


def read_network(folder: Path, weights: Weights) -> Network:
    """Return the network that config.json describes. Raises InputError if it is not supported or has invalid sizes."""
    config = read_config(folder)
    path, fields = config.path, Fields(config.content, str(config.path))
    name = check_architecture(folder)
    _check_plain(config, name, path)
    width, heads = _size(fields, "hidden_size"), _size(fields, "num_attention_heads")
    if not fields.has("head_dim") and width % heads:
        raise fields.reject("num_attention_heads", f"is {heads}, which does not divide {width}")
    qwen2 = name == "Qwen2ForCausalLM"
    return Network(
        architecture=ARCHITECTURES[name],
        layers=_size(fields, "num_hidden_layers", MAX_LAYERS),
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
    """Return the source's name of the tensor that is `name` in GGUF."""
    if name in _OUTER:
        return _OUTER[name]
    _, layer, part, ending = name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{ending}"


def _check_plain(config: ModelConfig, name: str, path: Path) -> None:
    """Reject features that change the computation and that this conversion does not support."""
    if config.get("hidden_act", "silu") not in ("silu", "swish"):
        raise InputError(f"{path}: {name} with the activation {config.get('hidden_act')} is not supported", WHAT_WORKS)
    if config.get("mlp_bias"):
        raise InputError(f"{path}: {name} with biases in its feed-forward part is not supported", WHAT_WORKS)
    if config.get("quantization_config"):
        raise InputError(f"{path}: the model is already quantized", "convert the model before quantization")
    if name.startswith("Qwen") and name != "Qwen2ForCausalLM" and config.get("attention_bias"):
        raise InputError(f"{path}: {name} with biases in its attention is not supported", WHAT_WORKS)


def _size(fields: Fields, key: str, most: int = MAX_SIZE) -> int:
    value = fields.integer(key)
    if not 1 <= value <= most:
        raise fields.reject(key, f"is {value}, not between 1 and {most}")
    return value


def _rows(weights: Weights, fields: Fields) -> int:
    """Return the rows of the embedding: config.json is often not updated when tokens are added in fine-tuning."""
    name = _OUTER["token_embd.weight"]
    if name in weights.names() and len(weights.shape(name)) == 2:
        return weights.shape(name)[0]
    return _size(fields, "vocab_size")


def _rope_base(config: ModelConfig) -> float:
    base = config.rope.get("rope_theta", config.get("rope_theta", 10000.0))
    return float(base) if isinstance(base, (int, float)) and base > 0 else 10000.0


def _scaling(config: ModelConfig, path: Path) -> RopeScaling | None:
    rope = config.rope
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind in ("default", None):
        return None
    if kind not in ("llama3", "linear", "yarn"):
        what = f"{path}: positions are scaled by '{kind}', which is not supported"
        raise InputError(what, "what works: llama3, linear and yarn")
    fields = Fields(rope.content, str(path), "rope_scaling")
    factor = fields.number("factor")
    if not 0 < factor < 1e6:
        raise fields.reject("factor", f"is {factor}")
    if kind == "yarn" and any(rope.get(key) is not None for key in ("attention_factor", "mscale", "mscale_all_dim")):
        raise InputError(f"{path}: yarn with its own temperature is not supported", "what works: plain yarn")
    original = rope.get("original_max_position_embeddings") or config.get("max_position_embeddings") or 0
    if kind == "llama3":
        return RopeScaling(
            kind=kind,
            factor=factor,
            original=int(original),
            low_frequency=fields.number("low_freq_factor"),
            high_frequency=fields.number("high_freq_factor"),
        )
    return RopeScaling(kind=kind, factor=factor, original=int(original) if kind == "yarn" else 0)


def _window(config: ModelConfig, is_switched: bool) -> int | None:
    """Return the sliding window, which Qwen's configurations can switch off."""
    window = config.get("sliding_window")
    if not isinstance(window, int) or window < 1 or (is_switched and not config.get("use_sliding_window")):
        return None
    return window
