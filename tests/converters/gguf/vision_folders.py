"""Small seeded folders of models that take pictures, as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from converters.library_calls import suppress_output
from tests.converters.gguf import real_tokenizers

SIDE, PATCHES = 56, 4  # pixels of a picture, and its tokens in Gemma 3
LLAVA_PATCHES = 16
_MARKS = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "initializer_range": 0.2,
}


def _tokenizer(*marks: str) -> Any:
    from tokenizers import AddedToken, Tokenizer

    tokenizer = Tokenizer.from_str(real_tokenizers.tokenizer("llama-spm").to_str())
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in marks])
    return tokenizer


def _seeded(config: Any) -> Any:
    import torch
    import transformers

    model = transformers.AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if "norm" in name or name.endswith("bias"):  # ones and zeros would hide a mistake
                values += 0.3 * torch.randn_like(values)
    return model


def gemma_3(folder: Path, seed: int = 0) -> Path:
    """A Gemma 3 with a SigLIP of three layers."""
    with suppress_output():
        import torch
        import transformers

        folder.mkdir(parents=True)
        tokenizer = _tokenizer(*_MARKS.values())
        tokenizer.save(str(folder / "tokenizer.json"))
        begin, end, image = (tokenizer.token_to_id(text) for text in _MARKS.values())
        settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
        settings |= {"chat_template": _TEMPLATE, "extra_special_tokens": _MARKS}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        torch.manual_seed(seed)
        text = {**_SIZES, "num_hidden_layers": 2, "num_key_value_heads": 2, "head_dim": 16, "query_pre_attn_scalar": 16}
        text |= {"sliding_window": 96, "max_position_embeddings": 256, "vocab_size": tokenizer.get_vocab_size() + 5}
        text |= {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
        config = transformers.Gemma3Config(
            text_config=text,
            vision_config={**_SIZES, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 14},
            mm_tokens_per_image=PATCHES,
            boi_token_index=begin,
            eoi_token_index=end,
            image_token_index=image,
            initializer_range=0.2,
        )
        model = _seeded(config)
        with torch.no_grad():
            model.model.multi_modal_projector.mm_input_projection_weight.normal_(0, 0.2)  # zeros would show nothing
        model.save_pretrained(folder)
        pictures = {"image_processor_type": "Gemma3ImageProcessor", "size": {"height": SIDE, "width": SIDE}}
        pictures |= {"image_mean": [0.5, 0.45, 0.4], "image_std": [0.5, 0.4, 0.3], "image_seq_length": PATCHES}
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
        processor = {"processor_class": "Gemma3Processor", "image_seq_length": PATCHES}
        (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


def llava(folder: Path, seed: int = 0, **own: Any) -> Path:
    """A LLaVA 1.5 with a CLIP of three layers, whose class token is the first."""
    with suppress_output():
        import torch
        import transformers

        folder.mkdir(parents=True)
        tokenizer = _tokenizer("<image>")
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
        settings |= {"chat_template": _TEMPLATE, "extra_special_tokens": {"image_token": "<image>"}}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        torch.manual_seed(seed)
        text = {**_SIZES, "num_hidden_layers": 2, "num_key_value_heads": 2, "max_position_embeddings": 256}
        text |= {"vocab_size": tokenizer.get_vocab_size() + 5, "model_type": "llama"}
        vision = {**_SIZES, "num_hidden_layers": 3, "image_size": SIDE, "patch_size": 14, "projection_dim": 64}
        vision |= {"model_type": "clip_vision_model", "hidden_act": "quick_gelu"}
        config = transformers.LlavaConfig(
            text_config=text,
            vision_config=vision,
            image_token_index=tokenizer.token_to_id("<image>"),
            image_seq_length=LLAVA_PATCHES,
            initializer_range=0.2,
            **own,
        )
        _seeded(config).save_pretrained(folder)
        pictures = {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}}
        pictures |= {"crop_size": {"height": SIDE, "width": SIDE}}
        pictures |= {"image_mean": [0.5, 0.45, 0.4], "image_std": [0.5, 0.4, 0.3]}
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
        processor = {"processor_class": "LlavaProcessor", "patch_size": 14, "num_additional_image_tokens": 1}
        processor |= {"vision_feature_select_strategy": "default"}
        (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    return folder


_QWEN = {"vision_start_token_id": "<|vision_start|>", "vision_end_token_id": "<|vision_end|>"}
_QWEN |= {"image_token_id": "<|image_pad|>", "video_token_id": "<|video_pad|>"}


def qwen2_vl(folder: Path, seed: int = 0) -> Path:
    """A Qwen2-VL, whose pictures have positions in three dimensions."""
    with suppress_output():
        import torch
        import transformers

        folder.mkdir(parents=True)
        tokenizer = _tokenizer(*_QWEN.values())
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": _TEMPLATE}), "utf-8")
        torch.manual_seed(seed)
        rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
        text = {**_SIZES, "num_hidden_layers": 2, "num_key_value_heads": 2, "max_position_embeddings": 256}
        text |= {"vocab_size": tokenizer.get_vocab_size() + 5, "bos_token_id": 1, "eos_token_id": 2}
        vision = {"depth": 4, "embed_dim": 64, "hidden_size": 64, "num_heads": 4, "mlp_ratio": 4, "patch_size": 14}
        config = transformers.Qwen2VLConfig(
            text_config={**text, "rope_parameters": rope},
            vision_config={**vision, "initializer_range": 0.2},
            **{name: tokenizer.token_to_id(token) for name, token in _QWEN.items()},
        )
        _seeded(config).save_pretrained(folder)
        pictures = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 14, "merge_size": 2}
        pictures |= {"image_mean": [0.5, 0.45, 0.4], "image_std": [0.5, 0.4, 0.3]}
        (folder / "preprocessor_config.json").write_text(json.dumps(pictures), encoding="utf-8")
        (folder / "processor_config.json").write_text('{"processor_class": "Qwen2VLProcessor"}', encoding="utf-8")
    return folder


def smolvlm(folder: Path, seed: int = 0) -> Path:
    """A SmolVLM, whose text part names no class, without the files that its pictures need."""
    with suppress_output():
        import torch
        import transformers

        folder.mkdir(parents=True)
        tokenizer = _tokenizer("<image>")
        tokenizer.save(str(folder / "tokenizer.json"))
        settings = {"bos_token": "<s>", "eos_token": "</s>", "tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": _TEMPLATE}), "utf-8")
        torch.manual_seed(seed)
        text = {**_SIZES, "num_hidden_layers": 2, "num_key_value_heads": 2, "max_position_embeddings": 256}
        text |= {"vocab_size": tokenizer.get_vocab_size() + 5, "model_type": "llama", "bos_token_id": 1}
        vision = {**_SIZES, "num_hidden_layers": 2, "image_size": SIDE, "patch_size": 14}
        image = tokenizer.token_to_id("<image>")
        config = transformers.SmolVLMConfig(text_config=text, vision_config=vision, image_token_id=image)
        _seeded(config).save_pretrained(folder)
    return folder
