"""Write the picture encoder of LLaVA 1.5: CLIP with a class token, which llama.cpp's converter does not support."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from converters.gguf.language_model import check_nothing_left
from converters.gguf.model_config import ModelConfig
from converters.gguf.weights import SafetensorsFolder, read_json
from converters.gguf.writer import MATRIX_TYPES, Entry, add_value, new_writer, write_tensors
from runtimes.arrays import Array
from runtimes.artifact.json_fields import Fields
from runtimes.errors import InputError

_MAX_JSON = 2**22
_HINT = "--no-pictures converts the language model alone"
# The pixels' mean and deviation of OpenAI's CLIP, if preprocessor_config.json has none.
_PIXELS = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
# The names of tensors in transformers 4 and 5 → in GGUF (tools/mtmd/clip-impl.h). The typo is transformers' own.
_PREFIX = r"(?:model\.)?vision_tower\.(?:vision_model\.)?"
_NAMES = {
    _PREFIX + r"embeddings\.class_embedding": "v.class_embd",
    _PREFIX + r"embeddings\.patch_embedding\.weight": "v.patch_embd.weight",
    _PREFIX + r"embeddings\.position_embedding\.weight": "v.position_embd.weight",
    _PREFIX + r"pre_layrnorm\.(weight|bias)": r"v.pre_ln.\1",
    _PREFIX + r"encoder\.layers\.(\d+)\.layer_norm([12])\.(weight|bias)": r"v.blk.\1.ln\2.\3",
    _PREFIX + r"encoder\.layers\.(\d+)\.self_attn\.([qkv]|out)_proj\.(weight|bias)": r"v.blk.\1.attn_\2.\3",
    _PREFIX + r"encoder\.layers\.(\d+)\.mlp\.fc1\.(weight|bias)": r"v.blk.\1.ffn_up.\2",
    _PREFIX + r"encoder\.layers\.(\d+)\.mlp\.fc2\.(weight|bias)": r"v.blk.\1.ffn_down.\2",
    r"(?:model\.)?multi_modal_projector\.linear_1\.(weight|bias)": r"mm.0.\1",
    r"(?:model\.)?multi_modal_projector\.linear_2\.(weight|bias)": r"mm.2.\1",
}
_ENCODER = re.compile(r"(?:model\.)?(vision_tower|multi_modal_projector)\..+")
_UNUSED = re.compile(_PREFIX + r"(post_layernorm\..+|embeddings\.position_ids)")


def is_clip(config: ModelConfig) -> bool:
    """Return whether a model's picture encoder is CLIP."""
    vision = config.get("vision_config")
    return isinstance(vision, dict) and vision.get("model_type") in ("clip_vision_model", "clip")


def write_clip_encoder(folder: Path, config: ModelConfig, path: Path, precision: str, name: str) -> None:
    """Write `path` in fp32, fp16 or bf16. Raises InputError for a variant that llama.cpp computes otherwise."""
    entries = _entries(folder, config)
    stored = SafetensorsFolder(folder)
    encoder = {one for one in stored.names() if _ENCODER.fullmatch(one) and not _UNUSED.fullmatch(one)}
    originals = {written: one for one in sorted(encoder) if (written := _written_name(one))}
    check_nothing_left(encoder, set(originals.values()), folder)
    shapes = {written: stored.shape(original) for written, original in originals.items()}
    for layer in ("mm.0", "mm.2"):  # llama.cpp requires the biases, which a projector may not have
        if f"{layer}.weight" in shapes:
            shapes.setdefault(f"{layer}.bias", shapes[f"{layer}.weight"][:1])

    def load(written: str) -> Array:
        return stored.load(originals[written]) if written in originals else np.zeros(shapes[written], np.float32)

    writer = new_writer(path, "clip")
    writer.add_name(name)
    writer.add_bool("clip.has_vision_encoder", True)
    for key, value in entries.items():
        add_value(writer, f"clip.{key}", value)
    types = {
        written: np.float32 if len(shape) != 2 or "embd" in written else MATRIX_TYPES[precision]
        for written, shape in shapes.items()
    }
    write_tensors(writer, shapes, types, load, lambda _done, _total: None, path)


def _written_name(name: str) -> str | None:
    return next((re.sub(pattern, to, name) for pattern, to in _NAMES.items() if re.fullmatch(pattern, name)), None)


def _entries(folder: Path, config: ModelConfig) -> Mapping[str, Entry]:
    """Return the metadata, without its prefix. Raises InputError for a variant that llama.cpp computes otherwise."""
    fields = Fields(config.content, str(config.path))
    vision = fields.child("vision_config")
    activation = vision.optional_text("hidden_act") or "quick_gelu"
    for what, given, supported in (
        ("the model", config.architecture, ("LlavaForConditionalGeneration",)),
        ("vision_feature_select_strategy", config.get("vision_feature_select_strategy", "default"), ("default",)),
        ("projector_hidden_act", config.get("projector_hidden_act", "gelu"), ("gelu",)),
        ("hidden_act of the picture encoder", activation, ("quick_gelu", "gelu")),
    ):
        if given not in supported:
            message = f"{folder}: {what} is {given}; with CLIP, edge only supports {' and '.join(supported)}"
            raise InputError(message, _HINT)
    path = folder / "preprocessor_config.json"
    pixels = Fields(read_json(path, _MAX_JSON) if path.is_file() else {}, str(path))
    layers, chosen = vision.integer("num_hidden_layers"), config.get("vision_feature_layer", -2)
    return {
        "projector_type": "mlp",
        "use_gelu": activation == "gelu",
        "vision.image_size": vision.integer("image_size"),
        "vision.patch_size": vision.integer("patch_size"),
        "vision.embedding_length": vision.integer("hidden_size"),
        "vision.feed_forward_length": vision.integer("intermediate_size"),
        "vision.block_count": layers,
        "vision.projection_dim": vision.optional_integer("projection_dim") or vision.integer("hidden_size"),
        "vision.attention.head_count": vision.integer("num_attention_heads"),
        "vision.attention.layer_norm_epsilon": vision.optional_number("layer_norm_eps") or 1e-5,
        # The hidden states that the projector gets; 0 is the input of the first layer.
        "vision.feature_layer": [
            int(one) if one >= 0 else layers + 1 + one for one in (chosen if isinstance(chosen, list) else [chosen])
        ],
        **{f"vision.{key}": list(pixels.numbers(key)) if pixels.has(key) else usual for key, usual in _PIXELS.items()},
    }
