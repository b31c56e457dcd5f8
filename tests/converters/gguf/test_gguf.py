"""Language models to GGUF: random networks of every architecture and a trained one answer like their sources."""

from __future__ import annotations

import hashlib
import json
import struct
from contextlib import closing
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from converters.gguf.base import GgufOptions
from converters.gguf.bpe_merges import _letters, read_ranks
from converters.gguf.detect import recognize
from converters.gguf.language_model import LanguageModel
from converters.gguf.reference import _numpy, source_scores
from converters.gguf.token_check import LANGUAGES
from converters.gguf.tokenizer_json import _CASELESS, _REST
from converters.gguf.verification import load_options, prove_text
from converters.gguf.write_model_file import make_gguf
from converters.hf_to_gguf import HfToGguf
from converters.library_calls import suppress_output
from converters.llama2c_to_gguf import Llama2cToGguf
from converters.meta_to_gguf import MetaToGguf
from converters.options import ConvertOptions
from runtimes.errors import EdgeError, InputError, ProofError
from runtimes.llm.session import TextOptions
from runtimes.registry import text_engine
from tests.real_data import real_data

pytestmark = pytest.mark.skipif(
    not all(find_spec(name) for name in ("gguf", "llama_cpp", "transformers", "tokenizers")),
    reason="needs gguf, llama_cpp and transformers",
)
STORY = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,  # the usual 0.02 gives scores that are all the same
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
# Name → class of the configuration, what is its own, and the tokenizer's kind.
NETWORKS: dict[str, tuple[str, dict[str, Any], str]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}, "sentencepiece"),
    "llama3": ("LlamaConfig", {"rope_parameters": LLAMA3}, r"\p{N}{1,3}"),
    "linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}}, "smollm"),
    "biased": ("LlamaConfig", {"attention_bias": True, "head_dim": 32}, "smollm"),
    "mistral": ("MistralConfig", {"sliding_window": 96, "head_dim": 16}, "sentencepiece"),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}, r"\p{N}"),
    "qwen3": ("Qwen3Config", {"head_dim": 32}, r"\p{N}"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every network with seeded random weights, as transformers writes it."""
    place = tmp_path_factory.mktemp("networks")
    return {name: write_folder(place / name, *NETWORKS[name]) for name in NETWORKS}


@pytest.fixture(scope="module")
def llm() -> Path:
    return real_data("llm")


def write_folder(folder: Path, kind: str, own: dict[str, Any], cutting: str) -> Path:
    with suppress_output():
        import torch
        import transformers

        folder.mkdir()
        tokenizer = trained_tokenizer(cutting)
        tokenizer.save(str(folder / "tokenizer.json"))
        torch.manual_seed(1)
        size = tokenizer.get_vocab_size() + 3  # embeddings are often rounded up
        config = getattr(transformers, kind)(
            **{**SIZES, "vocab_size": size, "bos_token_id": 1, "eos_token_id": 2, **own}
        )
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for name, values in model.named_parameters():
                if name.endswith(("norm.weight", "bias")):  # ones and zeros would hide a mistake
                    values += 0.3 * torch.randn_like(values)
        model.save_pretrained(folder)
    settings = {"bos_token": "<s>", "eos_token": "</s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def trained_tokenizer(cutting: str) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    special = ["<unk>", "<s>", "</s>"]
    lines = LANGUAGES.read_text(encoding="utf-8").splitlines()
    if cutting == "sentencepiece":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        octets = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *octets], show_progress=False)
        tokenizer.train_from_iterator([line for line in lines if line.isascii()], trainer)
        written = json.loads(tokenizer.to_str())
        written["added_tokens"] = [one for one in written["added_tokens"] if one["content"] in special]
        return Tokenizer.from_str(json.dumps(written))
    llama3 = "{1,3}" in cutting
    tokenizer = Tokenizer(models.BPE(ignore_merges=llama3))
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cutting == "smollm")
    first = pre_tokenizers.Digits(individual_digits=True)
    if cutting != "smollm":
        first = pre_tokenizers.Split(Regex(_CASELESS + cutting + _REST), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, bytes_of])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer)
    return tokenizer


def opened(path: Path, model: LanguageModel, adapters: dict[str, float] | None = None) -> Any:
    return closing(text_engine(str(path)).open_text(str(path), load_options(model, adapters)))


def greedy(path: Path, prompt: str, count: int) -> str:
    from runtimes.llm.session import LoadOptions

    with closing(text_engine(str(path)).open_text(str(path), LoadOptions(kv_type="f32"))) as session:
        tokens = session.tokenize(prompt, begin=True)
        options = TextOptions(max_tokens=count, temperature=0.0, ignore_end=True)
        return "".join(token.text for token in session.generate(tokens, options))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_random_network_answers_as_transformers_does(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    model = HfToGguf().open(folders[name], GgufOptions())
    made = HfToGguf().convert(folders[name], tmp_path, ConvertOptions(precision="fp32"), None)
    with opened(made.model, model) as session:
        proof = prove_text(model, session, "fp32")
    assert proof.passed, proof.message
    assert proof.facts["reference"] == "transformers"
    assert proof.facts["metrics"]["snr_db"] > 50
    texts = [list(range(3, 90))]
    (scores,), by = source_scores(model, texts)
    assert by == "transformers"
    assert np.abs(_numpy(model, texts)[0] - scores).max() < 1e-3 * np.abs(scores).max()


def test_the_proof_notices_a_wrong_rotation(folders: dict[str, Path], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("converters.gguf.writer.pair_up", lambda values, _heads: values)
    model = HfToGguf().open(folders["llama3"], GgufOptions())
    made = HfToGguf().convert(folders["llama3"], tmp_path, ConvertOptions(precision="fp32"), None)
    with opened(made.model, model) as session:
        assert not prove_text(model, session, "fp32").passed


def test_the_proof_notices_wrong_tokens(folders: dict[str, Path], tmp_path: Path) -> None:
    model = HfToGguf().open(folders["llama"], GgufOptions())
    scores = tuple(-score for score in model.vocabulary.scores)  # the latest merges first
    made = make_gguf(
        replace(model, vocabulary=replace(model.vocabulary, scores=scores)), tmp_path, ConvertOptions(precision="fp32")
    )
    with opened(made.model, model) as session, pytest.raises(ProofError, match="tokenizes"):
        prove_text(model, session, "fp32")


def test_the_same_folder_gives_the_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    digests = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        made = HfToGguf().convert(folders["qwen3"], tmp_path / name, ConvertOptions(precision="q8_0"), None)
        digests.add(hashlib.sha256(made.model.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_trained_model_tells_its_story_from_every_form_it_has(llm: Path, tmp_path: Path) -> None:
    wanted = greedy(llm / "stories260K.gguf", "", 256)
    assert wanted.lstrip().startswith(STORY)
    sources = [(HfToGguf(), llm / "stories260K-hf"), (Llama2cToGguf(), llm / "stories260K.bin")]
    for step, source in sources:
        made = step.convert(source, tmp_path, ConvertOptions(precision="fp32"), None)
        assert greedy(made.model, "", 256) == wanted


@pytest.mark.parametrize("precision", ["q8_0", "q4_0", "q4_k_m"])
def test_quantized_it_still_tells_a_story(precision: str, llm: Path, tmp_path: Path) -> None:
    made = HfToGguf().convert(llm / "stories260K-hf", tmp_path, ConvertOptions(precision=precision), None)
    assert greedy(made.model, "", 40).lstrip().startswith("Once upon a time")
    assert [path.name for path in tmp_path.iterdir()] == ["stories260K-hf.gguf"]


def test_sentencepiece_without_its_own_file_has_the_scores_of_the_merges(llm: Path) -> None:
    from converters.gguf.sentencepiece_model import read_model
    from converters.gguf.vocabulary import sentencepiece

    encode = sentencepiece(read_model(llm / "stories260K-hf" / "tokenizer.model"))
    other = HfToGguf().open(llm / "stories260K-hf", GgufOptions()).encode
    lines = LANGUAGES.read_text(encoding="utf-8").splitlines()
    assert [encode(line) for line in lines] == [other(line) for line in lines]


def test_metas_shards_are_put_together(llm: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    source = Llama2cToGguf().open(llm / "stories260K.bin", GgufOptions())
    shards: list[dict[str, Any]] = [{}, {}]
    for name in source.network.tensors():
        values = torch.tensor(source.weights.load(name))
        meta = meta_name(name)
        rows = name.endswith(("attn_q.weight", "attn_k.weight", "attn_v.weight", "ffn_gate.weight", "ffn_up.weight"))
        axis = 0 if rows else 1
        parts = [values, values] if values.ndim == 1 else values.chunk(2, axis)
        for shard, part in zip(shards, parts, strict=True):
            shard[meta] = part.clone()
    folder = tmp_path / "meta"
    folder.mkdir()
    for number, shard in enumerate(shards):
        torch.save(shard, folder / f"consolidated.0{number}.pth")
    said = {"dim": 64, "n_layers": 5, "n_heads": 8, "n_kv_heads": 4, "vocab_size": -1, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps(said), encoding="utf-8")
    (folder / "tokenizer.model").write_bytes((llm / "stories260K-hf" / "tokenizer.model").read_bytes())
    assert recognize(folder) == "meta"
    made = MetaToGguf().convert(folder, tmp_path, ConvertOptions(precision="fp32"), None)
    assert greedy(made.model, "", 100) == greedy(llm / "stories260K.gguf", "", 100)


def write_meta_llama3(folder: Path) -> Any:
    """A random LLaMA 3.1 as Meta gives it, whose ranks are those of a tokenizer that is trained here and returned."""
    import base64

    import torch

    tokenizer = trained_tokenizer(r"\p{N}{1,3}")
    letters = {letter: byte for byte, letter in enumerate(_letters())}
    pieces = sorted(tokenizer.get_vocab().items(), key=lambda one: one[1])[3:]  # the special ones are not among them
    lines = [base64.b64encode(bytes(letters[one] for one in piece)) + b" %d" % n for n, (piece, _) in enumerate(pieces)]
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(b"\n".join(lines) + b"\n")
    said = {"dim": 64, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "vocab_size": len(lines) + 256, "norm_eps": 1e-5}
    (folder / "params.json").write_text(json.dumps({**said, "rope_theta": 500000.0, "use_scaled_rope": True}))
    shapes = {"wq": (64, 64), "wk": (32, 64), "wv": (32, 64), "wo": (64, 64)}
    sizes = {f"attention.{name}": shape for name, shape in shapes.items()}
    sizes |= {"feed_forward.w1": (96, 64), "feed_forward.w3": (96, 64), "feed_forward.w2": (64, 96)}
    sizes |= {"attention_norm": (64,), "ffn_norm": (64,)}
    whole = {f"layers.{layer}.{name}.weight": shape for layer in range(2) for name, shape in sizes.items()}
    whole |= {"norm.weight": (64,), "tok_embeddings.weight": (len(lines) + 256, 64)}
    whole |= {"output.weight": whole["tok_embeddings.weight"]}
    torch.manual_seed(0)
    torch.save({name: 0.2 * torch.randn(shape) for name, shape in whole.items()}, folder / "consolidated.00.pth")
    return tokenizer


def test_metas_llama_3_has_its_tokenizer_of_ranks(tmp_path: Path) -> None:
    tokenizer = write_meta_llama3(tmp_path / "meta")
    model = MetaToGguf().open(tmp_path / "meta", GgufOptions())
    lines = LANGUAGES.read_text(encoding="utf-8").splitlines()
    assert [model.encode(line) for line in lines] == [[n - 3 for n in tokenizer.encode(line).ids] for line in lines]
    merges = [" ".join(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    assert list(model.vocabulary.merges) == merges
    names = {name: model.vocabulary.tokens[number] for name, number in model.vocabulary.special.items()}
    assert names == {"bos": "<|begin_of_text|>", "eos": "<|end_of_text|>", "eot": "<|eot_id|>"}
    made = MetaToGguf().convert(tmp_path / "meta", tmp_path, ConvertOptions(precision="fp32"), None)
    with opened(made.model, model) as session:
        assert prove_text(model, session, "fp32").passed


@pytest.mark.parametrize("line", [b"IQ== 0\nIQ== 1\n", b"IQ== 0\n*** 1\n", b"IQ== 0\nIg== 5\n", b"IQ== 0\nIg==\n"])
def test_broken_ranks_are_refused(line: bytes, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(line)
    with pytest.raises(InputError, match=r"tokenizer\.model(: line 2 is not a piece| lacks)"):
        read_ranks(tmp_path / "tokenizer.model", is_3_1=False)


def meta_name(name: str) -> str:
    from converters.gguf.meta_checkpoint import _source_name

    return _source_name(name)


def changed_json(path: Path, **entries: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **entries}), encoding="utf-8")


def lengthened_header(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + path.read_bytes()[8:])


def lying_offsets(folder: Path) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    header["model.norm.weight"]["data_offsets"] = [0, 4 * 64]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def cut_off(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def index(name: str) -> Any:
    def write(folder: Path) -> None:
        told = {"weight_map": {"model.norm.weight": name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(told), encoding="utf-8")

    return write


def config(**entries: Any) -> Any:
    return lambda folder: changed_json(folder / "config.json", **entries)


HOSTILE = {
    "a header longer than the file": (lengthened_header, "longer than the file"),
    "tensors that overlap": (lying_offsets, "overlaps"),
    "a file cut off": (cut_off, "but its tensors need"),
    "a path outside": (index("../model.safetensors"), "outside the folder"),
    "a missing shard": (index("model-00002.safetensors"), "lacks model-00002"),
    "no json": (lambda folder: (folder / "tokenizer.json").write_text("{", encoding="utf-8"), "is not JSON"),
    "a tokenizer without a model": (
        lambda folder: (folder / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8"),
        "tokenizer.json has an unexpected structure",
    ),
    "another architecture": (config(architectures=["HiForCausalLM"]), "HiForCausalLM, which cannot be converted"),
    "RWKV 4": (config(architectures=["RwkvForCausalLM"]), "RWKV 4, but llama.cpp only supports RWKV 6 and 7"),
    "Phi-3.5-MoE": (config(architectures=["PhimoeForCausalLM"]), "sparse mixer of experts"),
    "an encoder and a decoder": (
        config(architectures=["T5ForConditionalGeneration"], is_encoder_decoder=True),
        "is T5ForConditionalGeneration, an encoder-decoder model",
    ),
    "quantized by AWQ": (config(quantization_config={"quant_method": "awq"}), "quantized by awq"),
    "betas that llama.cpp ignores": (
        config(rope_parameters={"rope_type": "yarn", "factor": 4.0, "beta_fast": 64, "beta_slow": 4}),
        "beta_fast 64 and beta_slow 4, but llama.cpp always uses 32 and 1",
    ),
    "a cut that llama.cpp always makes": (
        config(rope_parameters={"rope_type": "yarn", "factor": 4.0, "truncate": False}),
        "truncate false, but llama.cpp always truncates",
    ),
    "a cut of gpt-oss": (
        config(
            architectures=["GptOssForCausalLM"],
            rope_parameters={"rope_type": "yarn", "factor": 32.0, "truncate": False},
        ),
        "truncate false, but llama.cpp always truncates",
    ),
    "betas of one kind of layers": (
        config(
            architectures=["Olmo3ForCausalLM"],
            rope_parameters={"full_attention": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 64}},
        ),
        "beta_fast 64 and beta_slow None",
    ),
    "a window that llama.cpp lacks": (
        config(architectures=["Exaone4ForCausalLM"], sliding_window=96),
        "sliding_window 96 and 2 layers",
    ),
    "a rank that llama.cpp expects": (
        config(architectures=["DeepseekV2ForCausalLM"], q_lora_rank=None),
        "q_lora_rank None and 2 layers",
    ),
    "factors for shorter contexts than llama.cpp has": (
        config(
            architectures=["Phi3ForCausalLM"],
            rope_parameters={"rope_type": "longrope", "original_max_position_embeddings": 128},
        ),
        "original_max_position_embeddings 128: llama.cpp's shortest context is 256",
    ),
    "layers that are not there": (config(num_hidden_layers=3), "lacks the tensor 'blk.2"),
    "layers that are too many": (config(num_hidden_layers=1), "architecture does not have"),
    "a billion layers": (config(num_hidden_layers=10**9), "not between"),
    "no heads": (config(num_attention_heads=0), "not between"),
    "a template that fails": (
        lambda folder: (folder / "chat_template.jinja").write_text("{{ raise_exception('no') }}", encoding="utf-8"),
        "chat template of .* fails",
    ),
    "a template that is hostile": (
        lambda folder: (folder / "chat_template.jinja").write_text(
            "{{ ''.__class__.__mro__[1].__subclasses__() }}", encoding="utf-8"
        ),
        "chat template of .* fails",
    ),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line(what: str, folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder, out = tmp_path / "model", tmp_path / "out"
    shutil.copytree(folders["llama3"], folder)
    out.mkdir()
    change, message = HOSTILE[what]
    change(folder)
    with pytest.raises(InputError, match=message):
        HfToGguf().convert(folder, out, ConvertOptions(precision="fp32"), None)
    assert list(out.iterdir()) == []


def test_a_template_that_fails_can_be_dropped(folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(folders["llama3"], folder)
    (folder / "chat_template.jinja").write_text("{% broken", encoding="utf-8")
    HfToGguf().convert(folder, tmp_path, GgufOptions(precision="fp32", drop_template=True), None)


@pytest.mark.parametrize("cut", [0, 10, 28, 5000])
def test_a_broken_checkpoint_of_llama2c_is_refused(cut: int, llm: Path, tmp_path: Path) -> None:
    path = tmp_path / "stories260K.bin"
    path.write_bytes((llm / "stories260K.bin").read_bytes()[:cut])
    with pytest.raises(EdgeError, match=r"stories260K\.bin"):
        Llama2cToGguf().open(path, GgufOptions())


def test_a_file_of_2023_is_recognized_and_refused(tmp_path: Path) -> None:
    path = tmp_path / "ggml-model-q4_0.bin"
    path.write_bytes(b"tjgg" + bytes(100))
    with pytest.raises(InputError, match="ggml file of 2023"):
        recognize(path)
