"""Whether a Hugging Face folder's model can be converted: its architecture, its quantization, and its settings.

llama.cpp ignores some settings, or derives them from others. The proof finds each of them too, but not the reason.
Sources: src/models and ggml/src/ggml.c of llama.cpp 0c1e570.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

from converters.gguf.model_config import ModelConfig, quantization, read_config
from converters.gguf.older_config import OTHER_NAMES, text_class
from runtimes.errors import EngineMissingError, InputError
from runtimes.llm.llama_cpp.memory import CELLS

WHAT_WORKS = "what works: the language models that llama.cpp supports; docs/guides/quantize.md lists them"
_KNOWN_YARN = "what works: yarn with 32 and 1, which nearly every model has"
# Architectures of llama.cpp's deepseek2.
_LATENT = ("DeepseekV2ForCausalLM", "DeepseekV3ForCausalLM", "Glm4MoeLiteForCausalLM", "YoutuForCausalLM")
_PHI_MOE = "llama.cpp computes its layer norms as RMS norms, and its sparse mixer of experts as a softmax"
_REFUSED = {
    "RwkvForCausalLM": "RWKV 4, but llama.cpp only supports RWKV 6 and 7",
    "PhiMoEForCausalLM": _PHI_MOE,  # the name that its makers published
    "PhimoeForCausalLM": _PHI_MOE,  # transformers' own
}
# Methods that the converter dequantizes (`dequant_model` in conversion/base.py), with the library that transformers
# needs to compute the scores of the source; edge computes those of the first two itself (dequantization.py).
_QUANTIZED = {
    "fp8": "",
    "gptq": "",
    "mxfp4": "accelerate",
    "bitnet": "accelerate",
    "compressed-tensors": "compressed_tensors",
}


def check_architecture(folder: Path) -> str:
    """Return the name of the folder's architecture. Raises InputError, with the reason, if it is not supported."""
    config = read_config(folder)
    name, inner = config.architecture, text_class(config.content)
    if name in _REFUSED:
        raise InputError(f"{folder} is {name}: {_REFUSED[name]}", WHAT_WORKS)
    if config.get("is_encoder_decoder") and not inner:
        what = f"{folder} is {name}, an encoder-decoder model"
        raise InputError(f"{what}: edge only converts models that continue a text", WHAT_WORKS)
    if not {name, inner} & known_architectures():
        what = f"{folder} is {name}, which" if name else f"the config.json of {folder} names no architecture, so it"
        raise InputError(f"{what} cannot be converted to gguf", WHAT_WORKS)
    _check_quantization(config, folder)
    for part in [config, config.text] if config.text else [config]:
        for rope in part.rotations:
            _check_yarn(rope, name, folder)
        _check_limits(part, name, folder)
    return name


@cache
def known_architectures() -> frozenset[str]:
    """Return the architectures that the pinned llama.cpp converts and generates text with."""
    listed = Path(__file__).with_name("architectures.txt").read_text(encoding="utf-8").split()
    return frozenset([*listed, *OTHER_NAMES])


def _check_quantization(config: ModelConfig, folder: Path) -> None:
    method = quantization(config)
    if method is None:
        return
    if method not in _QUANTIZED:
        what = f"{folder} is quantized by {method}, which llama.cpp's converter or the proof does not support"
        raise InputError(what, f"convert the model before quantization; what works: {', '.join(_QUANTIZED)}")
    library = _QUANTIZED[method]
    if library and find_spec(library) is None:
        what = f"{folder} is quantized by {method}: transformers needs {library} to compute its scores for the proof"
        raise EngineMissingError(what, f"pip install {library.replace('_', '-')}")


def _check_yarn(rope: ModelConfig, name: str, folder: Path) -> None:
    """Check YaRN: llama.cpp reads the betas only for Grok and Mistral 3 (src/models), and always truncates."""
    if rope.get("rope_type", rope.get("type")) != "yarn" or "Mistral3" in name:
        return
    fast, slow = rope.get("beta_fast"), rope.get("beta_slow")
    if fast not in (None, 32) or slow not in (None, 1):
        what = f"{folder}: its positions are scaled by yarn with beta_fast {fast} and beta_slow {slow}"
        raise InputError(f"{what}, but llama.cpp always uses 32 and 1", _KNOWN_YARN)
    if rope.get("truncate") is False:
        what = f"{folder}: its positions are scaled by yarn with truncate false, but llama.cpp always truncates"
        raise InputError(what, "a GGUF file of it from elsewhere runs in edge chat, with this difference")


def _check_limits(part: ModelConfig, name: str, folder: Path) -> None:
    """Check settings that llama.cpp fixes, or derives from others."""
    layers, short, why = part.get("num_hidden_layers"), part.short_context, None
    if name == "Exaone4ForCausalLM" and bool(part.get("sliding_window")) != (layers == 64):
        why = f"sliding_window {part.get('sliding_window')} and {layers} layers: llama.cpp has one with 64 layers only"
    elif name in _LATENT and (part.get("q_lora_rank") is None) != _lacks_query_rank(part):
        why = f"q_lora_rank {part.get('q_lora_rank')} and {layers} layers: llama.cpp has none with 26 or 27 only"
    elif short is not None and short < CELLS:
        why = f"longrope with original_max_position_embeddings {short}: llama.cpp's shortest context is {CELLS} tokens"
    if why is not None:
        raise InputError(f"{folder} is {name} with {why}", "the models that its makers published have other settings")


def _lacks_query_rank(part: ModelConfig) -> bool:
    """Whether llama.cpp expects the variant of DeepSeek V2 without q_lora_rank (src/models/deepseek2.cpp)."""
    layers = part.get("num_hidden_layers")
    return layers in (26, 27) or (layers == 48 and part.get("vocab_size") == 128256)
