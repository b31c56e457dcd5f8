"""Small folders of many families, with seeded weights and real tokenizers, as transformers saves them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from converters.library_calls import suppress_output
from tests.converters.gguf import real_tokenizers

# GELU in half precision, which ggml computes through a table, costs some 50 dB.
GELU_DB, EXACT_DB = 55.0, 100.0
_SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # the usual 0.02 gives scores that are all the same
}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_MLA = {"kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16, "v_head_dim": 16, "num_key_value_heads": 4}
_ROUTED = {
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 48,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
_MAMBA_2 = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_n_groups": 1}
_YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
_LONGROPE = {"type": "longrope", "short_factor": [1 + i / 8 for i in range(8)], "long_factor": [2.0] * 8}


@dataclass(frozen=True, kw_only=True)
class Family:
    """One architecture.

    Attributes:
        config: The class of its configuration.
        vocabulary: The tokenizer; see real_tokenizers.
        own: What its configuration has of its own.
        least_db: The scores' signal over what differs, in fp32.
    """

    config: str
    vocabulary: str
    own: dict[str, Any] = field(default_factory=dict)
    least_db: float = EXACT_DB


FAMILIES = {
    "gpt-neox": Family(config="GPTNeoXConfig", vocabulary="gpt-neox", own={"rotary_pct": 0.25}, least_db=GELU_DB),
    "gpt-neox-serial": Family(
        config="GPTNeoXConfig", vocabulary="gpt-neox", own={"use_parallel_residual": False}, least_db=GELU_DB
    ),
    "gpt-2": Family(
        config="GPT2Config",
        vocabulary="gpt-2",
        own={"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": None},
        least_db=GELU_DB,
    ),
    "gemma-2": Family(
        config="Gemma2Config",
        vocabulary="llama-spm",
        own={"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 96},
        least_db=GELU_DB,
    ),
    "gemma-3": Family(
        config="Gemma3TextConfig",
        vocabulary="llama-spm",
        own={"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 96, "num_hidden_layers": 6},
        least_db=GELU_DB,
    ),
    "phi-3": Family(config="Phi3Config", vocabulary="phi-3", own={"pad_token_id": 0}),
    "phi-3-longrope": Family(
        config="Phi3Config",
        vocabulary="phi-3",
        own={
            "pad_token_id": 0,
            "original_max_position_embeddings": 256,
            "max_position_embeddings": 512,
            "rope_scaling": _LONGROPE,
        },
    ),
    "mixtral": Family(
        config="MixtralConfig", vocabulary="llama-spm", own={"num_local_experts": 4, "num_experts_per_tok": 2}
    ),
    "qwen2-moe": Family(
        config="Qwen2MoeConfig", vocabulary="gpt-2", own={**_EXPERTS, "shared_expert_intermediate_size": 64}
    ),
    "qwen3-moe": Family(
        # llama.cpp normalizes the weights of the chosen experts, as every published Qwen 3 does.
        config="Qwen3MoeConfig",
        vocabulary="gpt-2",
        own={**_EXPERTS, "head_dim": 16, "norm_topk_prob": True},
    ),
    "olmo2": Family(config="Olmo2Config", vocabulary="gpt-neox"),
    "stablelm": Family(config="StableLmConfig", vocabulary="gpt-neox", own={"partial_rotary_factor": 0.25}),
    "smollm3": Family(config="SmolLM3Config", vocabulary="llama-bpe", own={"num_hidden_layers": 4, "pad_token_id": 0}),
    "falcon": Family(
        config="FalconConfig",
        vocabulary="falcon",
        own={
            "new_decoder_architecture": False,
            "multi_query": True,
            "parallel_attn": True,
            "alibi": False,
            "bias": False,
        },
        least_db=GELU_DB,
    ),
    "granite": Family(
        config="GraniteConfig",
        vocabulary="starcoder",
        own={
            "embedding_multiplier": 3.0,
            "logits_scaling": 2.0,
            "residual_multiplier": 0.5,
            "attention_multiplier": 0.2,
        },
    ),
    "mamba": Family(
        config="MambaConfig",
        vocabulary="gpt-neox",
        own={"state_size": 8, "num_hidden_layers": 2, "hidden_size": 64, "intermediate_size": 128, "expand": 2},
    ),
    "cohere-2": Family(
        config="Cohere2Config",
        vocabulary="gpt-2",
        own={"logit_scale": 0.5, "pad_token_id": 0, "num_hidden_layers": 4, "sliding_window": 96},
    ),
    "nemotron": Family(config="NemotronConfig", vocabulary="gpt-2", own={"head_dim": 16}),
    "mpt": Family(
        config="MptConfig",
        vocabulary="mpt",
        own={"d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 256},
        least_db=GELU_DB,
    ),
    "phi-2": Family(config="PhiConfig", vocabulary="gpt-2", own={"partial_rotary_factor": 0.5}, least_db=GELU_DB),
    "gpt-bigcode": Family(
        config="GPTBigCodeConfig",
        vocabulary="starcoder",
        own={"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "n_inner": 96},
        least_db=GELU_DB,
    ),
    "olmo": Family(config="OlmoConfig", vocabulary="gpt-neox", own={"clip_qkv": 2.0}),
    "olmo-moe": Family(config="OlmoeConfig", vocabulary="gpt-neox", own={**_EXPERTS, "num_key_value_heads": 4}),
    "deepseek-v3": Family(
        config="DeepseekV3Config",
        vocabulary="gpt-2",
        own={**_MLA, **_ROUTED, "q_lora_rank": 32},
    ),
    "glm": Family(config="GlmConfig", vocabulary="gpt-2", own={"head_dim": 16, "pad_token_id": 0}, least_db=GELU_DB),
    "glm-4": Family(config="Glm4Config", vocabulary="gpt-2", own={"head_dim": 16, "pad_token_id": 0}),
    "gemma": Family(config="GemmaConfig", vocabulary="llama-spm", own={"head_dim": 16}, least_db=GELU_DB),
    "seed-oss": Family(config="SeedOssConfig", vocabulary="gpt-2", own={"head_dim": 16}),
    "ernie-4.5": Family(config="Ernie4_5Config", vocabulary="gpt-2", own={"head_dim": 16, "pad_token_id": 0}),
    "granite-moe": Family(
        config="GraniteMoeConfig",
        vocabulary="starcoder",
        own={"num_local_experts": 4, "num_experts_per_tok": 2, "attention_multiplier": 0.2},
    ),
    "falcon-40b": Family(
        config="FalconConfig",
        vocabulary="falcon",
        own={
            "new_decoder_architecture": True,
            "num_kv_heads": 2,
            "multi_query": True,
            "parallel_attn": True,
            "alibi": False,
            "bias": False,
        },
        least_db=GELU_DB,
    ),
    "llama-biased": Family(config="LlamaConfig", vocabulary="gpt-2", own={"mlp_bias": True, "attention_bias": True}),
    "starcoder2": Family(config="Starcoder2Config", vocabulary="starcoder", least_db=GELU_DB),
    "qwen2": Family(config="Qwen2Config", vocabulary="qwen2", own={"tie_word_embeddings": True}),
    "mistral-yarn": Family(config="MistralConfig", vocabulary="llama-spm", own={"rope_parameters": _YARN}),
    "cohere": Family(config="CohereConfig", vocabulary="gpt-2", own={"logit_scale": 0.5, "pad_token_id": 0}),
    "bloom": Family(
        config="BloomConfig",
        vocabulary="gpt-2",
        own={"n_layer": 2, "n_head": 4, "hidden_size": 64, "seq_length": 256},
        least_db=GELU_DB,
    ),
    # llama.cpp always truncates YaRN's limits, and reads from the number of layers which variant a model is.
    "gpt-oss": Family(
        config="GptOssConfig",
        vocabulary="gpt-2",
        own={
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "head_dim": 16,
            "sliding_window": 96,
            "rope_parameters": {**_YARN, "rope_theta": 150000.0, "truncate": True},
        },
    ),
    "exaone-4": Family(
        config="Exaone4Config",
        vocabulary="gpt-2",
        own={"sliding_window": None, "layer_types": ["full_attention"] * 2},
    ),
    "exaone-4-sliding": Family(
        config="Exaone4Config",
        vocabulary="gpt-2",
        own={"sliding_window": 4096, "sliding_window_pattern": 4, "num_hidden_layers": 64, "initializer_range": 0.05},
    ),
    "deepseek-v2": Family(config="DeepseekV2Config", vocabulary="gpt-2", own={**_MLA, **_ROUTED, "q_lora_rank": 32}),
    "deepseek-v2-lite": Family(
        config="DeepseekV2Config",
        vocabulary="gpt-2",
        own={**_MLA, **_ROUTED, "q_lora_rank": None, "num_hidden_layers": 27, "initializer_range": 0.1},
    ),
    "glm-4.7-flash": Family(
        config="Glm4MoeLiteConfig", vocabulary="gpt-2", own={**_MLA, **_ROUTED, "q_lora_rank": 32, "pad_token_id": 0}
    ),
    "glm-4.5": Family(config="Glm4MoeConfig", vocabulary="gpt-2", own={**_ROUTED, "head_dim": 16, "pad_token_id": 0}),
    "dots1": Family(
        config="Dots1Config",
        vocabulary="gpt-2",
        own={**_ROUTED, "head_dim": 16, "num_key_value_heads": 4, "norm_topk_prob": True},
    ),
    "minicpm3": Family(config="MiniCPM3Config", vocabulary="llama-spm", own={**_MLA, "q_lora_rank": 32}),
    "olmo3": Family(config="Olmo3Config", vocabulary="gpt-neox", own={"num_hidden_layers": 4, "sliding_window": 96}),
    "apertus": Family(config="ApertusConfig", vocabulary="gpt-2", own={"pad_token_id": 0}),
    "arcee": Family(config="ArceeConfig", vocabulary="gpt-2", own={"head_dim": 16}),
    "hunyuan": Family(config="HunYuanDenseV1Config", vocabulary="gpt-2", own={"head_dim": 16, "pad_token_id": 0}),
    "hunyuan-moe": Family(
        config="HunYuanMoEV1Config",
        vocabulary="gpt-2",
        own={"head_dim": 16, "num_experts": 4, "moe_topk": 2, "pad_token_id": 0},
    ),
    "ernie-4.5-moe": Family(
        config="Ernie4_5_MoeConfig",
        vocabulary="gpt-2",
        own={
            "moe_num_experts": 4,
            "moe_k": 2,
            "moe_intermediate_size": 48,
            "moe_num_shared_experts": 1,
            "moe_layer_start_index": 1,
            "pad_token_id": 0,
        },
    ),
    "jamba": Family(
        config="JambaConfig",
        vocabulary="llama-spm",
        own={
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
            "use_mamba_kernels": False,
        },
    ),
    "lfm2": Family(config="Lfm2Config", vocabulary="gpt-2", own={"full_attn_idxs": [1], "block_multiple_of": 32}),
    "lfm2-moe": Family(
        config="Lfm2MoeConfig",
        vocabulary="gpt-2",
        own={**_EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention"]},
    ),
    "mamba2": Family(
        config="Mamba2Config",
        vocabulary="gpt-neox",
        own={"state_size": 16, "num_heads": 8, "head_dim": 16, "n_groups": 2, "expand": 2, "intermediate_size": 128},
    ),
    "bamba": Family(
        config="BambaConfig", vocabulary="gpt-2", own={**_MAMBA_2, "attn_layer_indices": [1], "pad_token_id": 0}
    ),
    "falcon-h1": Family(
        config="FalconH1Config", vocabulary="gpt-2", own={**_MAMBA_2, "mamba_d_ssm": 128, "head_dim": 16}
    ),
    "granite-hybrid": Family(
        config="GraniteMoeHybridConfig",
        vocabulary="gpt-2",
        own={
            **_MAMBA_2,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "shared_intermediate_size": 64,
            "layer_types": ["linear_attention", "full_attention"],
            "attention_multiplier": 0.2,
            "pad_token_id": 0,
        },
    ),
    "stablelm-2": Family(  # with norms of each head
        config="StableLmConfig",
        vocabulary="gpt-neox",
        own={"partial_rotary_factor": 0.25, "use_parallel_residual": True, "qk_layernorm": True},
    ),
    "qwen3-next": Family(
        config="Qwen3NextConfig",
        vocabulary="qwen2",
        own={
            **_EXPERTS,
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "shared_expert_intermediate_size": 64,
            "num_hidden_layers": 4,
        },
        least_db=80.0,  # its linear attention sums up rounding errors
    ),
    "nemotron-h": Family(
        config="NemotronHConfig",
        vocabulary="gpt-2",
        own={
            "layers_block_type": ["linear_attention", "mlp", "full_attention", "mlp"],
            "head_dim": 16,
            "mamba_num_heads": 8,
            "mamba_head_dim": 16,
            "ssm_state_size": 16,
            "n_groups": 1,
            "pad_token_id": 0,
        },
        least_db=GELU_DB,  # measured: 66
    ),
}


def write(folder: Path, family: Family, dtype: str = "float32") -> Path:
    """The folder of `family`."""
    with suppress_output():
        import torch
        import transformers

        folder.mkdir(parents=True)
        told = real_tokenizers.entries(family.vocabulary)
        tokenizer = real_tokenizers.tokenizer(family.vocabulary)
        tokenizer.save(str(folder / "tokenizer.json"))
        tokens = told["tokens"]
        bos, eos = int(told["bos_token_id"]), int(told["eos_token_id"])
        settings = {"bos_token": tokens[bos], "eos_token": tokens[eos], "tokenizer_class": "PreTrainedTokenizerFast"}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
        torch.manual_seed(1)
        named = {**_SIZES, "vocab_size": len(tokens), "bos_token_id": bos, "eos_token_id": eos, **family.own}
        config = getattr(transformers, family.config)(**named)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, values in model.named_parameters():
                if "norm" in name or name.endswith("bias"):  # ones and zeros would hide a mistake
                    values += 0.3 * torch.randn_like(values)
        model.to(getattr(torch, dtype)).save_pretrained(folder)
    return folder
