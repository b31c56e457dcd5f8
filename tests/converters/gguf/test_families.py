"""Families that llama.cpp's own converter converts: they answer as in transformers, and no code of the folder runs."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.gguf.base import GgufOptions
from converters.gguf.folder_model import FolderModel, converter_environment, write_adapter
from converters.gguf.verification import TextProof, load_options, prove_text
from converters.hf_to_gguf import HfToGguf
from runtimes.errors import EdgeError, HostError, InputError
from runtimes.registry import text_engine
from tests.converters.gguf import families, real_tokenizers
from tests.converters.gguf.families import FAMILIES
from tests.converters.gguf.test_gguf import changed_json

for _name in ("gguf", "llama_cpp", "transformers", "tokenizers"):
    pytest.importorskip(_name)
# Those that are converted on every run, a minute and a half together; all of them with --slow.
QUICK = ("gpt-neox", "gpt-2", "phi-3", "mixtral")


@pytest.fixture(scope="module", autouse=True)
def _environment() -> None:
    try:
        converter_environment().create()
    except HostError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"the converter's environment cannot be made here: {error.message}")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def written(place: Path, name: str, dtype: str = "float32") -> Path:
    folder = place / f"{name}-{dtype}"
    return folder if folder.exists() else families.write(folder, FAMILIES[name], dtype)


def converted(folder: Path, out: Path, precision: str = "fp32", **options: Any) -> tuple[TextProof, Path]:
    step, asked = HfToGguf(), GgufOptions(precision=precision, **options)
    model = step.open(folder, asked)
    made = step.convert(folder, out, asked, None)
    with closing(text_engine(str(made.model), "llama_cpp").open_text(str(made.model), load_options(model))) as session:
        return prove_text(model, session, precision), made.model


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in FAMILIES]
)
def test_a_family_answers_as_transformers_does(name: str, place: Path, tmp_path: Path) -> None:
    proof, _ = converted(written(place, name), tmp_path)
    assert proof.passed, proof.message
    assert proof.facts["reference"] == "transformers"
    assert proof.facts["metrics"]["snr_db"] > FAMILIES[name].least_db


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in real_tokenizers.NAMES if name != "gpt-neox"])
def test_the_real_tokenizers_give_the_ids_of_llama_cpps_own_tests(name: str) -> None:
    tokenizer = real_tokenizers.tokenizer(name)
    for text, ids in real_tokenizers.texts(name):
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids


def test_gpt_2_converts_from_the_files_of_2019(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written(place, "gpt-2"), tmp_path / "model")
    model = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]), encoding="utf-8")
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")
    (folder / "tokenizer.json").unlink()
    changed_json(folder / "tokenizer_config.json", tokenizer_class="GPT2Tokenizer")
    proof, _ = converted(folder, tmp_path)
    assert proof.passed, proof.message


def _more_weights(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = {**load_file(folder / "model.safetensors"), "gpt_neox.layers.0.more.weight": np.zeros(4, np.float32)}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a tensor": (_more_weights, "the weights contain gpt_neox.layers.0.more.weight"),
    "more tokens": (lambda folder: changed_json(folder / "config.json", vocab_size=9), "more tokens than config.json"),
    "a file": (lambda folder: (folder / "added_tokens.json").write_text("{"), "model/added_tokens.json is not JSON"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_wrong_with_a_folder_is_told_by_its_own_names(what: str, place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written(place, "gpt-neox"), tmp_path / "model")
    harm, told = BROKEN[what]
    harm(folder)
    with pytest.raises(InputError, match=re.escape(told)) as caught:
        converted(folder, tmp_path)
    assert str(folder) in caught.value.message
    assert "/edge-" not in caught.value.message


HOSTILE = """
import pathlib
pathlib.Path({mark!r}).write_text("run")
from transformers import GPTNeoXConfig as Config, PreTrainedTokenizerFast as Tokenizer
"""


def test_no_code_of_a_folder_is_run(place: Path, tmp_path: Path) -> None:
    folder, mark = shutil.copytree(written(place, "gpt-neox"), tmp_path / "model"), tmp_path / "mark"
    for name in ("configuration_evil", "tokenization_evil", "modeling_evil"):
        (folder / f"{name}.py").write_text(HOSTILE.format(mark=str(mark)), encoding="utf-8")
    changed_json(
        folder / "config.json",
        auto_map={"AutoConfig": "configuration_evil.Config", "AutoModelForCausalLM": "modeling_evil.Model"},
    )
    changed_json(
        folder / "tokenizer_config.json",
        auto_map={"AutoTokenizer": ["tokenization_evil.Tokenizer", "tokenization_evil.Tokenizer"]},
    )
    proof, _ = converted(folder, tmp_path)
    assert proof.passed
    assert not mark.exists()


def test_a_family_that_needs_code_of_its_own_is_refused_without_running_it(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, mark = shutil.copytree(written(place, "gpt-neox"), tmp_path / "model"), tmp_path / "mark"
    (folder / "tokenization_chatglm.py").write_text(HOSTILE.format(mark=str(mark)), encoding="utf-8")
    changed_json(folder / "config.json", architectures=["ChatGLMModel"], model_type="chatglm")
    changed_json(
        folder / "tokenizer_config.json",
        tokenizer_class="ChatGLMTokenizer",
        auto_map={"AutoTokenizer": ["tokenization_chatglm.Tokenizer", None]},
    )
    with pytest.raises(InputError, match="transformers does not have its model type chatglm"):
        converted(folder, tmp_path)
    monkeypatch.setattr("converters.gguf.folder_model.check_in_transformers", lambda *_given: None)
    with pytest.raises(InputError, match="converter cannot convert"):
        converted(folder, tmp_path)
    assert not mark.exists()
    assert list(tmp_path.glob("*.gguf")) == []


class Evil:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.write_text, (self.mark, "run")


def test_a_hostile_pickle_is_refused_and_not_run(place: Path, tmp_path: Path) -> None:
    import torch

    folder, mark = shutil.copytree(written(place, "gpt-neox"), tmp_path / "model"), tmp_path / "mark"
    (folder / "model.safetensors").unlink()
    torch.save({"gpt_neox.embed_in.weight": Evil(mark)}, folder / "pytorch_model.bin")
    with pytest.raises(EdgeError, match="converter cannot convert"):
        converted(folder, tmp_path)
    assert not mark.exists()


@pytest.mark.slow
def test_pickled_weights_convert(place: Path, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    folder = shutil.copytree(written(place, "gpt-neox"), tmp_path / "model")
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    proof, _ = converted(folder, tmp_path)
    assert proof.passed, proof.message


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "fp16", "q8_0", "q4_0"])
def test_it_is_written_in_every_precision(precision: str, place: Path, tmp_path: Path) -> None:
    proof, _ = converted(written(place, "gpt-neox", "bfloat16"), tmp_path, precision)
    assert proof.passed, proof.message


@pytest.mark.slow
def test_the_name_of_the_folder_changes_nothing(place: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(written(place, "mixtral"), tmp_path / "my-phi3-mixtral")
    proof, _ = converted(folder, tmp_path)
    assert proof.passed, proof.message


@pytest.mark.slow
def test_the_same_folder_gives_the_same_bytes(place: Path, tmp_path: Path) -> None:
    files = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        model = HfToGguf().open(written(place, "olmo2"), GgufOptions())
        model.write(tmp_path / name / "m.gguf", "fp16", lambda _done, _total: None)
        files.append((tmp_path / name / "m.gguf").read_bytes())
    assert files[0] == files[1]


@pytest.mark.slow
def test_an_adapter_is_applied_at_load(place: Path, tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    base, adapter = written(place, "olmo2"), tmp_path / "adapter"
    adapter.mkdir()
    generator = np.random.default_rng(0)
    start = "base_model.model.model.layers.0.mlp.gate_proj"
    shapes = {f"{start}.lora_A.weight": (4, 64), f"{start}.lora_B.weight": (96, 4)}
    tensors = {name: generator.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(tensors, adapter / "adapter_model.safetensors")
    said = {"peft_type": "LORA", "r": 4, "lora_alpha": 2.0, "use_rslora": True}
    (adapter / "adapter_config.json").write_text(json.dumps(said), encoding="utf-8")
    write_adapter(base, adapter, tmp_path / "adapter.gguf")
    plain, merged = HfToGguf().open(base, GgufOptions()), HfToGguf().open(base, GgufOptions(lora=adapter))
    assert isinstance(merged, FolderModel)
    plain.write(tmp_path / "base.gguf", "fp32", lambda _done, _total: None)
    options = load_options(plain, {str(tmp_path / "adapter.gguf"): 1.0})
    with closing(text_engine("m.gguf", "llama_cpp").open_text(str(tmp_path / "base.gguf"), options)) as session:
        proof = prove_text(merged, session, "fp32")
    assert proof.passed, proof.message


@pytest.mark.slow
def test_without_transformers_here_the_environments_is_asked(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.gguf.folder_model.has_transformers", lambda: False)
    proof, _ = converted(written(place, "stablelm"), tmp_path)
    assert proof.passed, proof.message
    assert proof.facts["reference"] == "transformers 4"


def test_without_a_network_the_message_says_what_to_do(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = written(place, "gpt-neox")
    monkeypatch.setenv("EDGE_CACHE", str(tmp_path / "empty"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(HostError, match="could not be created") as caught:
        converted(folder, tmp_path)
    assert "needs the network (once)" in caught.value.hint
