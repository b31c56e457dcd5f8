"""The proof refuses each of the planted faults, all in files that llama.cpp opens and runs."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.gguf import support
from converters.gguf.base import GgufOptions
from converters.gguf.folder_model import FolderModel, converter_environment
from converters.gguf.language_model import LanguageModel
from converters.gguf.model_parts import TextModel
from converters.gguf.verification import load_options, prove_text
from converters.gguf.vocabulary import NORMAL
from converters.hf_to_gguf import HfToGguf
from runtimes.errors import ProofError
from runtimes.model_files.gguf import GgufFile, read_gguf
from runtimes.registry import text_engine
from tests.converters.gguf import families
from tests.converters.gguf.test_gguf import NETWORKS, changed_json, write_folder

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers"):
    pytest.importorskip(_name)


TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}</s>{% endfor %}"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sources")
    found = {name: write_folder(place / name, *NETWORKS[name]) for name in ("llama3", "qwen2")}
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
    found["yarn"] = write_folder(place / "yarn", "LlamaConfig", {"rope_parameters": yarn}, "smollm")
    found["chat"] = shutil.copytree(found["llama3"], place / "chat")
    (found["chat"] / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return found


class Changed:
    """Weights, some of them others."""

    def __init__(self, model: LanguageModel, change: Callable[[str, Callable[[str], Any]], Any]) -> None:
        self._weights, self._change = model.weights, change

    def names(self) -> set[str]:
        return self._weights.names()

    def shape(self, name: str) -> tuple[int, ...]:
        return self._weights.shape(name)

    def load(self, name: str) -> Any:
        return self._change(name, self._weights.load)


def swapped(first: str, second: str) -> Callable[[LanguageModel], LanguageModel]:
    names = {first: second, second: first}
    return weights(lambda name, load: load(names.get(name, name)))


def weights(change: Callable[[str, Callable[[str], Any]], Any]) -> Callable[[LanguageModel], LanguageModel]:
    return lambda model: replace(model, weights=Changed(model, change))


def network(**entries: Any) -> Callable[[LanguageModel], LanguageModel]:
    return lambda model: replace(model, network=replace(model.network, **entries))


def token_swapped(model: LanguageModel) -> LanguageModel:
    tokens = list(model.vocabulary.tokens)
    first = next(n for n in range(3, len(tokens)) if tokens[n].isalpha() and len(tokens[n]) == 1)
    second = next(n for n in range(first + 1, len(tokens)) if tokens[n].isalpha() and len(tokens[n]) == 1)
    tokens[first], tokens[second] = tokens[second], tokens[first]
    return replace(model, vocabulary=replace(model.vocabulary, tokens=tuple(tokens)))


def merges_reversed(model: LanguageModel) -> LanguageModel:
    return replace(model, vocabulary=replace(model.vocabulary, merges=model.vocabulary.merges[::-1]))


def added_token_lost(model: LanguageModel) -> LanguageModel:
    types = list(model.vocabulary.types)
    types[model.vocabulary.tokens.index("<s>")] = NORMAL  # of the end llama.cpp would not believe it
    return replace(model, vocabulary=replace(model.vocabulary, types=tuple(types)))


def other_end(model: LanguageModel) -> LanguageModel:
    return replace(model, vocabulary=replace(model.vocabulary, special={**model.vocabulary.special, "bos": 7}))


def rolled_heads(name: str, load: Callable[[str], Any]) -> Any:
    return np.roll(load(name), 16, axis=0) if name == "blk.0.attn_k.weight" else load(name)


def no_bias(name: str, load: Callable[[str], Any]) -> Any:
    return 0 * load(name) if name == "blk.1.attn_q.bias" else load(name)


def transposed(name: str, load: Callable[[str], Any]) -> Any:
    return load(name).T if name == "blk.0.attn_output.weight" else load(name)  # as many rows as columns


def embedding_as_output(name: str, load: Callable[[str], Any]) -> Any:
    return load("token_embd.weight" if name == "output.weight" else name)


def other_template(model: LanguageModel) -> LanguageModel:
    return replace(model, vocabulary=replace(model.vocabulary, template=TEMPLATE.replace("</s>", "<unk>")))


def one_column(name: str, load: Callable[[str], Any]) -> Any:
    values = load(name).copy()
    if name == "blk.1.ffn_down.weight":
        values[:, 5] *= -1
    return values


FAULTS: dict[str, tuple[str, Callable[[LanguageModel], LanguageModel]]] = {
    "swapped norms": ("llama3", swapped("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight")),
    "swapped gate and up": ("llama3", swapped("blk.1.ffn_gate.weight", "blk.1.ffn_up.weight")),
    "swapped layers": ("llama3", swapped("blk.0.attn_v.weight", "blk.1.attn_v.weight")),
    "another rope base": ("qwen2", network(rope_base=20000.0)),
    "another norm epsilon": ("llama3", network(epsilon=1e-2)),
    "no rope scaling": ("yarn", network(scaling=None)),
    "keys of another head": ("llama3", weights(rolled_heads)),
    "heads of half the size": ("llama3", network(heads=8, kv_heads=4, head=8)),
    "a transposed square matrix": ("llama3", weights(transposed)),
    "the embedding as output": ("llama3", weights(embedding_as_output)),
    "another token in the template": ("chat", other_template),
    "a dropped bias": ("qwen2", weights(no_bias)),
    "one wrong column": ("llama3", weights(one_column)),
    "two tokens swapped": ("llama3", token_swapped),
    "merges in another order": ("qwen2", merges_reversed),
    "an added token that is none": ("llama3", added_token_lost),
    "another BOS": ("llama3", other_end),
}


def verdict(model: TextModel, file: Path) -> bool:
    with closing(text_engine(str(file), "llama_cpp").open_text(str(file), load_options(model))) as session:
        try:
            return prove_text(model, session, "fp32").passed
        except ProofError:
            return False


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_refused(fault: str, folders: dict[str, Path], tmp_path: Path) -> None:
    source, plant = FAULTS[fault]
    model = HfToGguf().open_plain(folders[source], GgufOptions())
    plant(model).write(tmp_path / "faulty.gguf", "fp32", lambda _done, _total: None)
    assert not verdict(model, tmp_path / "faulty.gguf")


@pytest.mark.parametrize("source", ["llama3", "qwen2", "yarn", "chat"])
def test_without_a_fault_it_passes(source: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = HfToGguf().open_plain(folders[source], GgufOptions())
    model.write(tmp_path / "right.gguf", "fp32", lambda _done, _total: None)
    assert verdict(model, tmp_path / "right.gguf")


def test_other_betas_of_yarn_are_seen_even_where_nothing_refuses_them(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(folders["yarn"], tmp_path / "betas")
    rope = json.loads((folder / "config.json").read_text(encoding="utf-8"))["rope_parameters"]
    changed_json(folder / "config.json", rope_parameters={**rope, "beta_fast": 64.0, "beta_slow": 4.0})
    monkeypatch.setattr(support, "_check_yarn", lambda *_given: None)
    model = HfToGguf().open_plain(folder, GgufOptions())
    model.write(tmp_path / "betas.gguf", "fp32", lambda _done, _total: None)
    assert not verdict(model, tmp_path / "betas.gguf")


def exchanged(first: str, second: str) -> Callable[[bytearray, GgufFile], None]:
    def plant(content: bytearray, file: GgufFile) -> None:
        one, other = (next(tensor for tensor in file.tensors if tensor.name == name) for name in (first, second))
        begin, rest = slice(one.offset, one.offset + one.bytes), slice(other.offset, other.offset + other.bytes)
        content[begin], content[rest] = content[rest], content[begin]

    return plant


def zeroed(name: str) -> Callable[[bytearray, GgufFile], None]:
    def plant(content: bytearray, file: GgufFile) -> None:
        tensor = next(tensor for tensor in file.tensors if tensor.name == name)
        content[tensor.offset : tensor.offset + tensor.bytes] = bytes(tensor.bytes)

    return plant


def entry(key: str, kind: str, value: float) -> Callable[[bytearray, GgufFile], None]:
    """Overwrite an entry; `kind` is its type as struct has it."""

    def plant(content: bytearray, file: GgufFile) -> None:
        assert file.metadata[key] != value
        struct.pack_into(f"<{kind}", content, content.index(key.encode()) + len(key) + 4, value)  # behind its type

    return plant


FAULTS_IN_A_FILE = {
    "swapped norms": exchanged("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight"),
    "a dropped bias": zeroed("blk.1.attn_qkv.bias"),
    "a dropped bias of a norm": zeroed("output_norm.bias"),
    "swapped layers": exchanged("blk.0.ffn_up.weight", "blk.1.ffn_up.weight"),
    "a rotation of more dimensions": entry("gptneox.rope.dimension_count", "I", 8),
    "layers one after the other": entry("gptneox.use_parallel_residual", "?", False),
    "another norm epsilon": entry("gptneox.attention.layer_norm_epsilon", "f", 1e-2),
    "another BOS": entry("tokenizer.ggml.bos_token_id", "I", 7),
}


@pytest.fixture(scope="module")
def neox(tmp_path_factory: pytest.TempPathFactory) -> tuple[FolderModel, Path]:
    """A GPT-NeoX, and what llama.cpp's converter makes of it."""
    converter_environment().create()
    place = tmp_path_factory.mktemp("neox")
    model = HfToGguf().open(families.write(place / "gpt-neox", families.FAMILIES["gpt-neox"]), GgufOptions())
    assert isinstance(model, FolderModel)
    model.write(place / "right.gguf", "fp32", lambda _done, _total: None)
    assert verdict(model, place / "right.gguf")
    return model, place / "right.gguf"


@pytest.mark.parametrize("fault", FAULTS_IN_A_FILE)
def test_a_fault_in_a_file_of_llama_cpps_converter_is_refused(
    fault: str, neox: tuple[FolderModel, Path], tmp_path: Path
) -> None:
    model, right = neox
    content = bytearray(right.read_bytes())
    FAULTS_IN_A_FILE[fault](content, read_gguf(right))
    (tmp_path / "faulty.gguf").write_bytes(content)
    assert not verdict(model, tmp_path / "faulty.gguf")
