"""Convert a Hugging Face folder with llama.cpp's own converter, in its environment; see `converters.gguf.staging`.

Vocabularies that the converter writes wrongly or not at all are written by edge:

    SentencePiece's BPE without tokenizer.model    the converter silently writes wrong scores: edge's vocabulary
    byte-level BPE with an unknown hash            the converter rejects it: edge's name of the pre-tokenizer
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from converters.environments import Environment, environment
from converters.gguf.clip_encoder import is_clip, write_clip_encoder
from converters.gguf.converter_failure import Failure, explain
from converters.gguf.dequantization import METHODS, dequantize
from converters.gguf.lora import Lora, write_plain
from converters.gguf.model_config import ModelConfig, quantization, read_config
from converters.gguf.model_parts import OnTensor
from converters.gguf.reference import check_in_transformers, fits_in_memory, has_transformers, transformers_scores
from converters.gguf.rwkv import VERSIONS, rwkv_scores
from converters.gguf.source_tokenizer import RWKV_WORLD, SourceTokenizer, read_source_tokenizer
from converters.gguf.staging import TemporaryFolder, stage
from converters.gguf.tokenizer_json import is_sentencepiece, pre_of, read_tokenizer_file, read_vocabulary
from converters.gguf.vocabulary import Vocabulary
from converters.gguf.weights import SafetensorsFolder, weight_files
from converters.gguf.writer import general_name
from runtimes.arrays import Array
from runtimes.artifact.json_fields import JsonObject
from runtimes.errors import EdgeError, HostError, InputError
from runtimes.llm.llama_cpp.memory import CELLS

ENVIRONMENT = "llama_cpp_converter"
_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
_DEFAULT_CONTEXT = 2048
_LONG_FACTORS = (
    "the proof uses contexts of at most {0} tokens, where the short factors of the positions apply (longrope);"
    " with a longer context, llama.cpp uses the long factors for every text"
)


@dataclass(frozen=True, kw_only=True)
class FolderModel:
    """A folder that llama.cpp's converter converts; see `converters.gguf.model_parts.TextModel`.

    Attributes:
        folder: The folder itself.
        config: Its config.json.
        own_vocabulary: The vocabulary to write instead of the converter's.
        pre: llama.cpp's name of the pre-tokenizer, if the converter does not know it.
        base: The original folder, if `folder` is one with a merged LoRA.
        adapter: That LoRA's folder.
        merged: The temporary folder of the merged weights, which lives as long as the model.
    """

    name: str
    folder: Path
    config: ModelConfig
    tokenizer: SourceTokenizer
    own_vocabulary: Vocabulary | None = None
    pre: str | None = None
    notes: tuple[str, ...] = ()
    base: Path | None = None
    adapter: Path | None = None
    merged: TemporaryFolder | None = None

    @property
    def context(self) -> int:
        """See `TextModel`; llama.cpp chooses the factors of longrope by it, transformers by the text's length."""
        return min(self.config.context or _DEFAULT_CONTEXT, _short_context(self.config) or sys.maxsize)

    def write(self, path: Path, precision: str, _on_tensor: OnTensor) -> None:
        """See `TextModel`; the progress is not reported per tensor."""
        with self._stage() as staged:
            own = None
            if self.own_vocabulary is not None:
                own = staged.with_name("vocabulary.json")
                text = json.dumps(asdict(replace(self.own_vocabulary, template=self.tokenizer.template)))
                own.write_text(text, encoding="utf-8")
            ask(
                f"llama.cpp's converter cannot convert {self.folder}",
                "convert",
                self.config,
                staged,
                out=str(path.resolve()),
                precision=_TYPES[precision],
                name=general_name(self.name, self.tokenizer),
                vocabulary=str(own) if own else None,
                pre=self.pre,
            )

    def write_pictures(self, path: Path, precision: str) -> None:
        """Write the picture encoder in fp32, fp16 or bf16. Raises InputError if it is not supported."""
        name = general_name(self.name, self.tokenizer)
        if is_clip(self.config):
            write_clip_encoder(self.folder, self.config, path, precision, name)
            return
        with self._stage() as staged:
            ask(
                f"llama.cpp's converter cannot convert the picture encoder of {self.folder}",
                "pictures",
                self.config,
                staged,
                out=str(path.resolve()),
                precision=_TYPES[precision],
                name=name,
            )

    def scores(self, texts: list[list[int]]) -> tuple[list[Array], str]:
        """See `TextModel`; computed by transformers 5 if that is installed, else by 4 in the environment."""
        version = VERSIONS.get(self.config.architecture)
        if version is not None:
            return rwkv_scores(SafetensorsFolder(self.folder), self.config, version, texts), f"numpy for RWKV {version}"
        if quantization(self.config) in METHODS:
            with tempfile.TemporaryDirectory(prefix="edge-") as place:
                plain = dequantize(self.folder, self.config, Path(place) / "model")
                try:
                    return replace(self, folder=plain, config=read_config(plain)).scores(texts)
                except EdgeError as error:
                    error.message = error.message.replace(str(plain), str(self.folder))
                    raise
        size = sum(file.stat().st_size for file in weight_files(self.folder))
        if not fits_in_memory(size // 2):
            what = f"{self.folder} is too large to be compared with transformers on this machine"
            raise HostError(what, "convert it on a machine with four times the model's size of free memory")
        if has_transformers():
            return transformers_scores(self.base or self.folder, texts, self.adapter), "transformers"
        with self._stage() as staged:
            out = staged.with_name("scores.npz")
            ask(f"transformers cannot run {self.folder}", "scores", self.config, staged, texts=texts, out=str(out))
            with np.load(out) as arrays:
                return [arrays[name] for name in sorted(arrays.files)], "transformers 4"

    def facts(self) -> JsonObject:
        """See `TextModel`."""
        return {"converter": "llama.cpp", "vocabulary": "edge" if self.own_vocabulary else "llama.cpp"}

    @contextmanager
    def _stage(self) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="edge-") as place:
            yield stage(self.folder, Path(place) / "model", without_template=self.tokenizer.template is None)


def open_folder(folder: Path, config: ModelConfig, drop_template: bool) -> FolderModel:
    """Open a folder. Raises InputError if it is broken, or has no tokenizer that edge can run."""
    weight_files(folder)  # rejects broken weights before the environment is created
    if config.architecture not in VERSIONS and has_transformers():
        check_in_transformers(folder, config)
    tokenizer, own, pre = _tokenizer(folder)
    if drop_template:
        tokenizer = replace(tokenizer, template=None)
    short = _short_context(config)
    return FolderModel(
        name=folder.resolve().name,
        folder=folder,
        config=config,
        tokenizer=tokenizer,
        own_vocabulary=own,
        pre=pre,
        notes=(_LONG_FACTORS.format(short),) if short else (),
    )


def _short_context(config: ModelConfig) -> int | None:
    """Return the longest context of llama.cpp with the short factors of longrope; None without longrope."""
    return config.short_context and config.short_context // CELLS * CELLS


def write_adapter(base: Path, adapter: Path, path: Path) -> Lora:
    """Write the GGUF adapter `path` without reading the base's weights.

    Raises InputError for changes that a GGUF adapter cannot contain.
    """
    lora = Lora(adapter)
    with tempfile.TemporaryDirectory(prefix="edge-") as place:
        plain = write_plain(lora, Path(place) / "adapter")
        staged = stage(base, Path(place) / "model")
        subject = f"llama.cpp's converter of adapters cannot convert {adapter}"
        ask(subject, "adapter", read_config(base), staged, adapter=str(plain), out=str(path.resolve()))
    return lora


def ask(subject: str, do: str, config: ModelConfig, staged: Path, **more: Any) -> None:
    """Run one task of the environment's job, without a time limit, because a large model takes hours.

    staged: The copy of the folder of `config`. Raises InputError about `subject` if the task fails.
    """
    job = {"do": do, "folder": str(staged), **more}
    answer = converter_environment().run(job, None, subject, "--debug shows its full output")
    if "failure" in answer:
        sys.stderr.write(answer["traceback"])  # shown with --debug
        what, hint = explain(Failure(kind=answer["failure"], text=answer["text"], line=answer["line"]), config, staged)
        raise InputError(f"{subject}: {what}", hint)


def converter_environment() -> Environment:
    """Return the environment of llama.cpp's converter, which is created on first use."""
    return environment(ENVIRONMENT)


def _tokenizer(folder: Path) -> tuple[SourceTokenizer, Vocabulary | None, str | None]:
    """Return the source's tokenizer, edge's vocabulary if that is written, and the name of the pre-tokenizer."""
    path = folder / "tokenizer.json"
    if path.is_file():
        document = read_tokenizer_file(path)
        own = None
        if is_sentencepiece(document) and not (folder / "tokenizer.model").is_file():
            own, _ = read_vocabulary(folder)
        return read_source_tokenizer(folder), own, pre_of(document)
    if (folder / "tokenizer.model").is_file() or (folder / RWKV_WORLD).is_file():
        return read_source_tokenizer(folder), None, None
    if not (folder / "vocab.json").is_file():
        what = f"{folder} has no tokenizer.json, tokenizer.model or vocab.json"
        raise InputError(what, "edge needs one of these files; copy the tokenizer's files into the folder")
    with tempfile.TemporaryDirectory(prefix="edge-") as place:  # vocab.json and merges.txt, the files of GPT-2 in 2019
        staged = stage(folder, Path(place) / "model")
        converted = Path(place) / "tokenizer"
        converted.mkdir()
        subject, out = f"the tokenizer of {folder} cannot be read", str(converted / "tokenizer.json")
        ask(subject, "tokenizer", read_config(folder), staged, out=out)
        document = read_tokenizer_file(converted / "tokenizer.json")
        return read_source_tokenizer(converted, folder), None, pre_of(document)
