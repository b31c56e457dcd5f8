"""RWKV 6 and 7: small seeded folders answer as the published equations do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from converters.gguf.source_tokenizer import read_source_tokenizer
from runtimes.arrays import Array
from runtimes.errors import InputError
from tests.converters.gguf.test_families import converted

pytest.importorskip("safetensors")
# Heads of 32: ggml computes RWKV 7 (ggml_compute_forward_rwkv_wkv7_f32) in steps of so many, and real ones have 64.
WIDTH, SIZE, HIDDEN, LAYERS, VOCABULARY = 64, 32, 96, 2, 320
WORDS = (" the", "the", " a", "ing", "Once", " upon", " time", "\n\n", "日本", "é")


def write_vocabulary(path: Path) -> None:
    pieces = [bytes([byte]) for byte in range(256)] + [word.encode() for word in WORDS]
    lines = []
    for number, piece in enumerate(pieces, 1):
        try:
            literal = repr(piece.decode())
        except UnicodeDecodeError:
            literal = repr(piece)
        lines.append(f"{number} {literal} {len(piece)}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def shapes_6() -> dict[str, tuple[int, ...]]:
    vector = (1, 1, WIDTH)
    found: dict[str, tuple[int, ...]] = {
        "rwkv.embeddings.weight": (VOCABULARY, WIDTH),
        "head.weight": (VOCABULARY, WIDTH),
    }
    for norm in ("rwkv.ln_out", "rwkv.blocks.0.pre_ln"):
        found |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for layer in range(LAYERS):
        start = f"rwkv.blocks.{layer}."
        for norm in ("ln1", "ln2", "attention.ln_x"):
            found |= {f"{start}{norm}.weight": (WIDTH,), f"{start}{norm}.bias": (WIDTH,)}
        found |= {f"{start}attention.time_maa_{one}": vector for one in "xwkvrg"}
        found |= {
            f"{start}attention.{one}.weight": (WIDTH, WIDTH) for one in ("receptance", "key", "value", "gate", "output")
        }
        found |= {
            f"{start}attention.time_maa_w1": (WIDTH, 160),
            f"{start}attention.time_maa_w2": (5, 32, WIDTH),
            f"{start}attention.time_decay": vector,
            f"{start}attention.time_decay_w1": (WIDTH, 64),
            f"{start}attention.time_decay_w2": (64, WIDTH),
            f"{start}attention.time_faaaa": (WIDTH // SIZE, SIZE),
            f"{start}feed_forward.time_maa_k": vector,
            f"{start}feed_forward.time_maa_r": vector,
            f"{start}feed_forward.key.weight": (HIDDEN, WIDTH),
            f"{start}feed_forward.receptance.weight": (WIDTH, WIDTH),
            f"{start}feed_forward.value.weight": (WIDTH, HIDDEN),
        }
    return found


def shapes_7() -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {
        "model.embeddings.weight": (VOCABULARY, WIDTH),
        "lm_head.weight": (VOCABULARY, WIDTH),
    }
    for norm in ("model.norm", "model.layers.0.pre_norm"):
        found |= {f"{norm}.weight": (WIDTH,), f"{norm}.bias": (WIDTH,)}
    for layer in range(LAYERS):
        start = f"model.layers.{layer}."
        for norm in ("attn_norm", "ffn_norm", "attn.g_norm"):
            found |= {f"{start}{norm}.weight": (WIDTH,), f"{start}{norm}.bias": (WIDTH,)}
        found |= {f"{start}attn.x_{one}": (1, 1, WIDTH) for one in "rwkvag"}
        found |= {f"{start}attn.{one}_proj.weight": (WIDTH, WIDTH) for one in "rkvo"}
        found |= {f"{start}attn.k_k": (WIDTH,), f"{start}attn.k_a": (WIDTH,), f"{start}attn.r_k": (WIDTH // SIZE, SIZE)}
        for one in ("w", "a", "g", *(["v"] if layer else [])):
            found[f"{start}attn.{one}_lora.lora.0.weight"] = (32, WIDTH)
            found[f"{start}attn.{one}_lora.lora.2.weight"] = (WIDTH, 32)
            if one != "g":
                found[f"{start}attn.{one}_lora.lora.2.bias"] = (WIDTH,)
        found[f"{start}ffn.x_k"] = (WIDTH,)
        found |= {f"{start}ffn.key.weight": (HIDDEN, WIDTH), f"{start}ffn.value.weight": (WIDTH, HIDDEN)}
    return found


def write(folder: Path, version: int) -> Path:
    from safetensors.numpy import save_file

    folder.mkdir()
    generator = np.random.default_rng(version)

    def values(name: str, shape: tuple[int, ...]) -> Array:
        around = 1.0 if ("norm" in name or "ln" in name) and name.endswith("weight") else 0.0
        strength = 1.0 if "embeddings" in name else 0.2
        return (around + strength * generator.normal(size=shape)).astype(np.float32)

    shapes = shapes_6() if version == 6 else shapes_7()
    save_file({name: values(name, shape) for name, shape in shapes.items()}, folder / "model.safetensors")
    config = {
        "architectures": [f"Rwkv{version}ForCausalLM"],
        "model_type": f"rwkv{version}",
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "intermediate_size": HIDDEN,
        "vocab_size": VOCABULARY,
    }
    if version == 6:
        config |= {"head_size": SIZE, "layer_norm_epsilon": 1e-5, "rescale_every": 6}
    else:
        ranks = ("decay_low_rank_dim", "a_low_rank_dim", "v_low_rank_dim", "gate_low_rank_dim")
        config |= {"head_dim": SIZE, "norm_eps": 1e-5, **dict.fromkeys(ranks, 32)}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_vocabulary(folder / "rwkv_vocab_v20230424.txt")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("version", [6, 7])
def test_it_answers_as_the_equations_say(version: int, tmp_path: Path) -> None:
    proof, _ = converted(write(tmp_path / "rwkv", version), tmp_path)
    assert proof.passed, proof.message
    assert proof.facts["reference"] == f"numpy for RWKV {version}"
    assert proof.facts["metrics"]["snr_db"] > 80
    assert "published equations" in proof.notes[0]


def test_the_longest_known_piece_is_chosen(tmp_path: Path) -> None:
    write_vocabulary(tmp_path / "rwkv_vocab_v20230424.txt")
    encode = read_source_tokenizer(tmp_path).encode
    assert encode("Once the") == [261, 257]
    assert encode("é\n\n") == [266, 264]
    assert encode("\x00") == [1]


def test_a_vocabulary_that_computes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rwkv_vocab_v20230424.txt").write_text("1 __import__('os') 3\n", encoding="utf-8")
    with pytest.raises(InputError, match="is not a number, a Python literal and a length"):
        read_source_tokenizer(tmp_path)
