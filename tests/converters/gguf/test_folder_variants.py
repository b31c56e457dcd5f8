"""Folders as they occur: saved by transformers 5, sharded, with added tokens and scaled positions of every kind."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from converters.gguf.base import GgufOptions
from converters.gguf.verification import TextProof, load_options, prove_text
from converters.hf_to_gguf import HfToGguf
from runtimes.errors import InputError, ProofError
from runtimes.registry import text_engine
from tests.converters.gguf.test_gguf import NETWORKS, changed_json, write_folder

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers"):
    pytest.importorskip(_name)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("sources")
    return {name: write_folder(place / name, *NETWORKS[name]) for name in ("llama", "llama3")}


def changed_tokenizer(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    document = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    change(document)
    (folder / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")


def proof_of(folder: Path, out: Path) -> TextProof:
    options = GgufOptions(precision="fp32")
    model = HfToGguf().open(folder, options)
    made = HfToGguf().convert(folder, out, options, None)
    with closing(text_engine("m.gguf", "llama_cpp").open_text(str(made.model), load_options(model))) as session:
        return prove_text(model, session, "fp32")


@pytest.mark.parametrize("scheme", ["first", "always", "never"])
def test_sentencepiece_as_transformers_5_saves_it(scheme: str, sources: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(sources["llama"], tmp_path / "model")

    def metaspace(document: dict[str, Any]) -> None:
        cut = {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": False}
        document |= {"normalizer": None, "pre_tokenizer": cut}

    changed_tokenizer(folder, metaspace)
    proof = proof_of(folder, tmp_path)
    assert proof.passed, proof.message
    told = any("SentencePiece's own space" in note for note in proof.notes)
    assert told == (scheme != "never")


SPECIAL = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
ADDED: dict[str, tuple[str, dict[str, bool], bool]] = {
    "special": ("llama", {}, True),
    "not special": ("llama", {"special": False}, True),
    "strips what follows": ("llama", {"rstrip": True}, False),
    "strips what precedes": ("llama", {"lstrip": True}, False),
    "a whole word": ("llama", {"single_word": True}, False),
    "only behind a space": ("llama", {"special": False, "normalized": True}, False),
    "special, bytes": ("llama3", {}, True),
    "not special, bytes": ("llama3", {"special": False}, True),
    "normalized, bytes": ("llama3", {"special": False, "normalized": True}, True),
    "strips what follows, bytes": ("llama3", {"rstrip": True}, False),
}


@pytest.mark.parametrize("kind", ADDED)
def test_an_added_token_is_read_as_in_the_source_or_refused(
    kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    source, flags, is_supported = ADDED[kind]
    folder = shutil.copytree(sources[source], tmp_path / "model")

    def add(document: dict[str, Any]) -> None:
        number = 1 + max([*document["model"]["vocab"].values(), *(one["id"] for one in document["added_tokens"])])
        document["added_tokens"].append({"id": number, "content": "<|user|>", **SPECIAL, **flags})

    changed_tokenizer(folder, add)
    if is_supported:
        assert proof_of(folder, tmp_path).passed
    else:
        with pytest.raises(ProofError, match="differently from the source"):
            proof_of(folder, tmp_path)


def test_shards_give_the_same_file(sources: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder, whole = shutil.copytree(sources["llama3"], tmp_path / "model"), tmp_path / "whole"
    whole.mkdir()
    before = HfToGguf().convert(folder, whole, GgufOptions(precision="fp16"), None).model.read_bytes()
    tensors, files = load_file(folder / "model.safetensors"), {}
    (folder / "model.safetensors").unlink()
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        name = f"model-0000{number}-of-00002.safetensors"
        save_file({one: tensors[one] for one in names}, folder / name)
        files |= dict.fromkeys(names, name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}), encoding="utf-8")
    assert HfToGguf().convert(folder, tmp_path, GgufOptions(precision="fp16"), None).model.read_bytes() == before


LONG = {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "factor": 4.0, "original_max_position_embeddings": 64}
YARN = {"factor": 4.0, "original_max_position_embeddings": 64}
SCALINGS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "yarn with the usual betas": ("yarn", {**YARN, "beta_fast": 32.0, "beta_slow": 1.0}, True),
    "yarn without the original length": ("yarn", {"factor": 4.0}, True),
    "dynamic": ("dynamic", {"factor": 2.0}, True),
    "longrope of a shorter context than llama.cpp has": ("longrope", LONG, False),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if "yarn" in kind else pytest.mark.slow) for kind in SCALINGS]
)
def test_scaled_positions_are_those_of_the_source_or_refused(
    kind: str, sources: dict[str, Path], tmp_path: Path
) -> None:
    name, settings, is_supported = SCALINGS[kind]
    folder = shutil.copytree(sources["llama3"], tmp_path / "model")
    changed_json(folder / "config.json", rope_parameters={"rope_type": name, "rope_theta": 1e4, **settings})
    if is_supported:
        assert proof_of(folder, tmp_path).passed
    else:
        with pytest.raises(InputError, match="shortest context is 256 tokens"):
            proof_of(folder, tmp_path)
