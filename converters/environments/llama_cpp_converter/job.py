"""llama.cpp's own converters, and transformers as the reference; runs inside its environment (see runner.py).

The folder of a job is a staged one (converters/gguf/staging.py), which only has data files. In addition, the network
and code from model folders are blocked here.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_SOURCE = Path(sys.prefix) / "source"
# By model type: keys of config.json that the converter's class does not read, because all published models have the
# same ratio, or because it looks for the names of an older format, and the writer's methods for them.
_FEED_FORWARD = "add_feed_forward_length"
_ASSUMED = {
    "falcon": {"ffn_hidden_size": _FEED_FORWARD},
    "glm": {"max_position_embeddings": "add_context_length"},
    "gpt2": {"n_inner": _FEED_FORWARD},
    "gpt_bigcode": {"n_inner": _FEED_FORWARD},
    "phi": {"intermediate_size": _FEED_FORWARD, "num_key_value_heads": "add_head_count_kv"},
}


def run(job: dict[str, str | list[list[int]] | None]) -> dict[str, str]:
    """Run job["do"]: "convert", "pictures", "adapter", "tokenizer" or "scores".

    An exception becomes a part of the answer, from which converters/gguf/converter_failure.py explains it.
    """
    _block_network_and_code()
    sys.path[:0] = [str(_SOURCE), str(_SOURCE / "gguf-py")]
    try:
        known = {"convert": _convert, "pictures": _pictures, "adapter": _adapter, "tokenizer": _tokenizer}
        do: Any = {**known, "scores": _scores}[str(job["do"])]
        return {"result": str(do(**{key: value for key, value in job.items() if key != "do"}))}
    except MemoryError:
        raise
    except (Exception, SystemExit) as error:  # some of the converter's classes call sys.exit
        line = traceback.extract_tb(error.__traceback__)[-1].line or ""
        found = {"failure": type(error).__name__, "text": str(error).strip(), "line": line}
        return {**found, "traceback": traceback.format_exc()}


def _block_network_and_code() -> None:
    """Block the network, and code from a model's folder."""
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    import socket

    import transformers.dynamic_module_utils as dynamic
    from transformers import AutoConfig, AutoTokenizer
    from transformers.models.auto import auto_factory, configuration_auto, tokenization_auto

    def refuse(*_args: Any, **_named: Any) -> Any:
        raise ValueError("the model needs code from its folder, which edge never runs")

    def offline(*_args: Any, **_named: Any) -> Any:
        raise OSError("the network is blocked during conversions")

    for module in (dynamic, auto_factory, configuration_auto, tokenization_auto):
        for name in ("get_class_from_dynamic_module", "get_cached_module_file", "get_class_in_module"):
            if hasattr(module, name):
                setattr(module, name, refuse)
    for kind in (AutoConfig, AutoTokenizer):
        kind.from_pretrained = _without_remote_code(kind.from_pretrained)
    socket.socket.connect = offline  # type: ignore[method-assign]
    socket.socket.connect_ex = offline  # type: ignore[method-assign]


def _without_remote_code(load: Any) -> Any:
    def from_pretrained(*args: Any, **named: Any) -> Any:
        return load(*args, **{**named, "trust_remote_code": False, "local_files_only": True})

    return from_pretrained


def _convert(folder: str, out: str, precision: str, name: str, vocabulary: str | None, pre: str | None) -> str:
    """Write `out` in "f32", "f16" or "bf16", and return the model's class.

    name: The value of general.name.
    vocabulary: The JSON file of a vocabulary to write instead of the converter's.
    pre: llama.cpp's name of the pre-tokenizer, if the converter does not know it by its hash.
    """
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    with torch.inference_mode():
        hparams = ModelBase.load_hparams(Path(folder), False)
        architecture = get_model_architecture(hparams, ModelType.TEXT)
        try:
            base_class = get_model_class(architecture)
        except NotImplementedError:
            raise ValueError(f"llama.cpp's converter does not support the architecture {architecture}") from None
        model_class = _with_vocabulary(base_class, vocabulary, pre)
        model_class.no_mtp = not _predicts_several(Path(folder), {**hparams, **hparams.get("text_config", {})})
        with _bambas_rotation(hparams):
            model_class(Path(folder), _file_type(precision), Path(out), model_name=name).write()
    return str(architecture)


@contextmanager
def _bambas_rotation(hparams: Any) -> Iterator[None]:
    """Reorder Bamba's queries and keys as it rotates them: a part of each head. The converter's class reorders all."""
    import torch
    from conversion.llama import LlamaModel

    original, width = LlamaModel.permute, hparams.get("attn_rotary_emb")

    def permute(weights: Any, heads: int, kv_heads: int | None) -> Any:
        count, rest = heads if kv_heads is None else kv_heads, weights.shape[1:]
        rows = weights.reshape(count, -1, *rest)
        rotated = rows[:, :width].reshape(count, 2, width // 2, *rest).swapaxes(1, 2).reshape(count, width, *rest)
        return torch.cat([rotated, rows[:, width:]], dim=1).reshape(weights.shape)

    if hparams.get("model_type") == "bamba" and width:
        LlamaModel.permute = staticmethod(permute)
    try:
        yield
    finally:
        LlamaModel.permute = original


def _predicts_several(folder: Path, hparams: Any) -> bool:
    """Whether the weights have layers that predict further tokens (MTP), which transformers does not save again."""
    import safetensors

    open_file: Any = safetensors.safe_open
    layers = hparams.get("num_hidden_layers", sys.maxsize)
    names = [name for file in folder.glob("*.safetensors") for name in open_file(file, "pt").keys()]  # noqa: SIM118
    numbers = [int(found[1]) for name in names if (found := re.search(r"\.layers\.(\d+)\.", name))]
    return not names or max(numbers, default=0) >= layers or any(re.search(r"(^|\.)mtp\.", name) for name in names)


def _file_type(precision: str) -> Any:
    import gguf

    kinds = gguf.LlamaFileType
    return {"f32": kinds.ALL_F32, "f16": kinds.MOSTLY_F16, "bf16": kinds.MOSTLY_BF16}[precision]


def _pictures(folder: str, out: str, precision: str, name: str) -> str:
    """Write the picture encoder of a model to `out` in "f32", "f16" or "bf16", and return the encoder's class."""
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class

    with torch.inference_mode():
        hparams = ModelBase.load_hparams(Path(folder), False)
        architecture = get_model_architecture(hparams, ModelType.MMPROJ)
        try:
            model_class = get_model_class(architecture, mmproj=True)
        except NotImplementedError:
            raise ValueError(f"llama.cpp's converter does not support the pictures of {architecture}") from None
        _with_older_names(model_class)(Path(folder), _file_type(precision), Path(out), model_name=name).write()
    return str(architecture)


def _with_older_names(base_class: Any) -> Any:
    """Return the encoder's class for the tensor names of either age.

    transformers 5 drops a level of the names of SigLIP and CLIP, without which the converter does not know them.
    """

    class Renaming(base_class):  # type: ignore[misc, unused-ignore]
        model_arch = base_class.model_arch

        @classmethod
        def filter_tensors(cls, item: Any) -> Any:
            name, load = item
            for short in ("vision_tower.embeddings.", "vision_tower.encoder.", "vision_tower.post_layernorm."):
                if name.startswith((short, f"model.{short}")):
                    name = name.replace("vision_tower.", "vision_tower.vision_model.", 1)
            if name.startswith("vision_tower.head."):  # of SigLIP's classifier, not a part of the encoder
                return None
            return super().filter_tensors((name, load))

    return Renaming


def _with_vocabulary(base_class: Any, vocabulary: str | None, pre: str | None) -> Any:
    """Return the model's class with our vocabulary, or our name of the pre-tokenizer, if the converter has none."""

    class Converted(base_class):  # type: ignore[misc, unused-ignore]
        model_arch = base_class.model_arch
        embedded = None  # the rows of the embedding

        def set_gguf_parameters(self) -> None:
            super().set_gguf_parameters()
            for key, add in _ASSUMED.get(str(self.hparams.get("model_type")), {}).items():
                if self.hparams.get(key):
                    getattr(self.gguf_writer, add)(self.hparams[key])

        def get_vocab_base_pre(self, tokenizer: Any) -> str:
            try:
                return str(super().get_vocab_base_pre(tokenizer))
            except NotImplementedError:
                if pre is None:
                    raise
                return pre

        def set_vocab(self) -> None:
            if vocabulary is not None:
                _write_vocabulary(self, json.loads(Path(vocabulary).read_text("utf-8")))
                return
            try:
                super().set_vocab()
            # Some classes only read tokenizer.model, or need tokens that only the published tokenizers have.
            except (AttributeError, FileNotFoundError, KeyError, ValueError, SystemExit):
                if not (self.dir_model / "tokenizer.json").is_file() or (self.dir_model / "tokenizer.model").is_file():
                    raise
                self._set_vocab_gpt2()
            _shorten_vocabulary(self.gguf_writer, self.embedded)

        def modify_tensors(self, data_torch: Any, name: str, bid: int | None) -> Any:
            for new_name, tensor in _all_tensors(super().modify_tensors(data_torch, name, bid)):
                if vocabulary is not None and name.endswith("embed_tokens.weight"):
                    tensor = data_torch  # Gemma 3's class cuts it to the vocabulary that it would have written itself
                if new_name == "token_embd.weight":
                    self.embedded = int(tensor.shape[0])
                yield new_name, tensor

    return Converted


def _all_tensors(found: Any) -> Any:
    """Yield what a class's own generator yields, and what it returns, as that of StableLM 2 does."""
    more = yield from found
    if more is not None:
        yield from more


def _shorten_vocabulary(writer: Any, rows: int | None) -> None:
    """Cut the tokens to the embedding's rows; the classes with Mamba 2 round them up, which llama.cpp rejects."""
    for key in ("tokens", "scores", "token_type"):
        entry = writer.kv_data[0].get(f"tokenizer.ggml.{key}")
        if entry is not None and rows is not None:
            entry.value = entry.value[:rows]


def _write_vocabulary(model: Any, vocabulary: Any) -> None:
    writer, tokens = model.gguf_writer, vocabulary["tokens"]
    rows = model.hparams.get("vocab_size", len(tokens))
    missing = range(len(tokens), rows)
    tokens = [*tokens, *(f"[PAD{number}]" for number in missing)]
    writer.add_tokenizer_model(vocabulary["kind"])
    writer.add_tokenizer_pre(vocabulary["pre"])
    writer.add_token_list(tokens)
    if vocabulary["scores"]:
        writer.add_token_scores([*vocabulary["scores"], *(-1e6 for _ in missing)])
    writer.add_token_types([*vocabulary["types"], *(5 for _ in missing)])
    if vocabulary["merges"]:
        writer.add_token_merges(vocabulary["merges"])
    for name, number in sorted(vocabulary["special"].items()):
        writer.add_uint32(f"tokenizer.ggml.{name}_token_id", number)
    writer.add_add_bos_token(vocabulary["adds_bos"])
    writer.add_add_eos_token(vocabulary["adds_eos"])
    if vocabulary["kind"] == "llama":
        writer.add_add_space_prefix(vocabulary["adds_space"])
    if vocabulary["template"]:
        writer.add_chat_template(vocabulary["template"])


def _adapter(folder: str, adapter: str, out: str) -> str:
    """Write `out` from the PEFT folder `adapter`; the weights of its base `folder` are not needed."""
    import runpy

    arguments = ["--outfile", out, "--outtype", "f32", "--base", folder, adapter]
    sys.argv = ["convert_lora_to_gguf.py", *arguments]
    try:
        runpy.run_path(str(_SOURCE / "convert_lora_to_gguf.py"), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise ValueError("llama.cpp's converter of adapters rejects it") from None
    return ""


def _tokenizer(folder: str, out: str) -> str:
    """Write `out`, a tokenizer.json, for a folder that only has the files of older tokenizers."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ValueError(f"{type(tokenizer).__name__} cannot be converted to a tokenizer.json")
    backend.save(out)
    return type(tokenizer).__name__


def _scores(folder: str, texts: list[list[int]], out: str) -> str:
    """Write transformers' scores of each text to `out` (.npz), float32 [tokens, vocabulary]. Returns its version."""
    import numpy as np
    import torch
    import transformers

    # `_block_network_and_code` has blocked downloads and code from the folder.
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32)
    except ValueError:
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder, torch_dtype=torch.float32)
    model.eval()
    with torch.no_grad():
        rows = [model(torch.tensor([tokens])).logits[0].float().numpy() for tokens in texts]
    np.savez(out, **{f"{place:04d}": row for place, row in enumerate(rows)})
    return str(transformers.__version__)
