"""LoRA adapters of every kind: merged, they answer like transformers with the adapter loaded."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.gguf.base import GgufOptions
from converters.gguf.lora import Lora, merge, write_plain
from converters.gguf.verification import load_options, prove_text
from converters.gguf.weights import SafetensorsFolder
from converters.hf_to_gguf import HfToGguf
from runtimes.errors import InputError
from runtimes.registry import text_engine
from tests.converters.gguf.test_gguf import NETWORKS, write_folder

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers"):
    pytest.importorskip(_name)
Q, V, EMBEDDING = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.v_proj", "model.embed_tokens"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("base") / "llama", *NETWORKS["llama3"])


def write_adapter(folder: Path, base: Path, ranks: dict[str, int], whole: tuple[str, ...] = (), **config: Any) -> Path:
    """An adapter as peft saves it: factors of these ranks by module, and whole weights."""
    from safetensors.numpy import save_file

    folder.mkdir()
    stored, generator, tensors = SafetensorsFolder(base), np.random.default_rng(0), {}

    def random(*shape: int) -> Any:
        return generator.normal(size=shape).astype(np.float32)

    for module, rank in ranks.items():
        rows, columns = stored.shape(f"{module}.weight")
        start = f"base_model.model.{module}"
        if module == EMBEDDING:
            tensors |= {
                f"{start}.lora_embedding_A": random(rank, rows),
                f"{start}.lora_embedding_B": random(columns, rank),
            }
            continue
        tensors |= {f"{start}.lora_A.weight": random(rank, columns), f"{start}.lora_B.weight": random(rows, rank)}
        if config.get("use_dora"):
            tensors[f"{start}.lora_magnitude_vector"] = 1 + np.abs(random(rows))
    for name in whole:
        tensors[f"base_model.model.{name}"] = random(*stored.shape(name))
    save_file(tensors, folder / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 2.0, **config}
    (folder / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


KINDS: dict[str, dict[str, Any]] = {
    "plain": {"ranks": {Q: 4, V: 4}},
    "ranks by pattern": {
        "ranks": {Q: 8, V: 2},
        "rank_pattern": {"q_proj": 8, "v_proj": 2},
        "alpha_pattern": {"q_proj": 5.0},
    },
    "rank-stabilised": {"ranks": {Q: 4}, "use_rslora": True},
    "embedding": {"ranks": {EMBEDDING: 4, Q: 4}},
    "whole modules": {"ranks": {Q: 4}, "whole": ("lm_head.weight",), "modules_to_save": ["lm_head"]},
    "dora": {"ranks": {Q: 4, V: 4}, "use_dora": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_merged_it_answers_as_transformers_with_the_adapter_beside_it(kind: str, base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, **KINDS[kind])
    options = GgufOptions(precision="fp32", lora=adapter)
    model = HfToGguf().open(base, options)
    made = HfToGguf().convert(base, tmp_path, options, None)
    with closing(text_engine(str(made.model)).open_text(str(made.model), load_options(model))) as session:
        proof = prove_text(model, session, "fp32")
    assert proof.passed, proof.message
    assert proof.facts["reference"] == "transformers"
    assert proof.facts["metrics"]["snr_db"] > 50


def test_a_merge_with_another_strength_is_noticed(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, {Q: 4})
    options = GgufOptions(precision="fp32", lora=adapter)
    model = HfToGguf().open(base, options)
    applied = Lora.applied
    monkeypatch.setattr(
        Lora, "applied", lambda self, change, weight, name: weight + (applied(self, change, weight, name) - weight) / 2
    )
    made = HfToGguf().convert(base, tmp_path, options, None)
    monkeypatch.undo()
    with closing(text_engine(str(made.model)).open_text(str(made.model), load_options(model))) as session:
        assert not prove_text(model, session, "fp32").passed


def test_nothing_else_changes(base: Path, tmp_path: Path) -> None:
    merged = merge(base, write_adapter(tmp_path / "adapter", base, {Q: 4}), tmp_path / "merged")
    before, after = SafetensorsFolder(base), SafetensorsFolder(merged)
    changed = [name for name in before.names() if not np.array_equal(before.load(name), after.load(name))]
    assert changed == [f"{Q}.weight"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"layer_replication": [[0, 1]]}, "layers that the base does not have"),
        ({"trainable_token_indices": [1]}, "single rows of the embedding"),
        ({"lora_bias": True}, "factors have biases"),
        ({"peft_type": "IA3"}, "of the type IA3"),
    ],
)
def test_what_cannot_be_merged_is_refused_with_its_reason(
    setting: dict[str, Any], message: str, base: Path, tmp_path: Path
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, {Q: 4}, **setting)
    with pytest.raises(InputError, match=message):
        Lora(adapter)


def test_an_adapter_of_another_base_is_refused(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, {Q: 4})
    text = (adapter / "adapter_model.safetensors").read_bytes().replace(b"layers.0", b"layers.7")
    (adapter / "adapter_model.safetensors").write_bytes(text)
    with pytest.raises(InputError, match="which the base does not have"):
        merge(base, adapter, tmp_path / "merged")


def test_a_plain_adapter_has_one_strength(base: Path, tmp_path: Path) -> None:
    lora = Lora(write_adapter(tmp_path / "adapter", base, **KINDS["ranks by pattern"]))
    plain = Lora(write_plain(lora, tmp_path / "plain"))
    for name, change in lora.changes.items():
        other = plain.changes[name]
        zeros = np.zeros(SafetensorsFolder(base).shape(name), np.float32)
        assert other.scale == pytest.approx(2.0 / other.rank)
        assert np.allclose(plain.applied(other, zeros, name), lora.applied(change, zeros, name), rtol=1e-4)


@pytest.mark.parametrize("kind", ["whole modules", "dora"])
def test_what_an_adapter_of_llama_cpp_cannot_hold_is_refused(kind: str, base: Path, tmp_path: Path) -> None:
    lora = Lora(write_adapter(tmp_path / "adapter", base, **KINDS[kind]))
    with pytest.raises(InputError, match="adapters of llama"):
        write_plain(lora, tmp_path / "plain")
