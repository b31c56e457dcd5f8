"""Convert a Hugging Face folder to GGUF, in one of two ways, chosen by its config.json:

    plain LLaMA, Mistral, Qwen 2 and 3    written here, tensor by tensor, in seconds and without torch
    everything else                       by llama.cpp's own converter, in its environment

The result of both is verified against the source.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from converters.gguf.base import GgufConverter, GgufOptions
from runtimes.errors import InputError

if TYPE_CHECKING:
    from converters.gguf.folder_model import FolderModel
    from converters.gguf.language_model import LanguageModel
    from converters.gguf.vocabulary import Encode, Vocabulary
    from converters.gguf.weights import Weights


class HfToGguf(GgufConverter):
    """See `converters.base.Converter`."""

    source = "hf"

    def open(self, model: Path, options: GgufOptions) -> LanguageModel | FolderModel:
        """Open the model of a folder, with `options.lora` merged. Raises InputError if it is broken or unknown."""
        from converters.gguf.folder_model import open_folder
        from converters.gguf.hugging_face import is_plain
        from converters.gguf.model_config import read_config
        from converters.gguf.support import check_architecture

        if not model.is_dir():
            raise InputError(f"{model} is not a Hugging Face folder", "pass the folder that contains config.json")
        check_architecture(model)
        if options.lora:
            return self._with_adapter(model, options.lora, options)
        if is_plain(model):
            return self.open_plain(model, options)
        return open_folder(model, read_config(model), options.drop_template)

    def _with_adapter(self, base: Path, adapter: Path, options: GgufOptions) -> LanguageModel | FolderModel:
        """Open a base with a LoRA merged. Its weights are in a temporary folder, which lives as long as the model."""
        from converters.gguf.folder_model import FolderModel
        from converters.gguf.lora import merge
        from converters.gguf.model_config import quantization, read_config
        from converters.gguf.staging import TemporaryFolder

        method = quantization(read_config(base))
        if method is not None:
            what = f"{base} is quantized by {method}, and an adapter cannot be merged into quantized weights"
            raise InputError(what, "use the model before quantization as the base")
        merged = TemporaryFolder(options.scratch)
        folder = merge(base, adapter, merged.path / "model")
        model = self.open(folder, replace(options, lora=None))
        name = base.resolve().name
        if isinstance(model, FolderModel):
            return replace(model, name=name, base=base, adapter=adapter, merged=merged)
        return replace(model, name=name, folder=base, adapter=adapter, merged=merged)

    def open_plain(self, model: Path, options: GgufOptions) -> LanguageModel:
        """Open the model of a folder whose GGUF edge writes itself, without llama.cpp's converter."""
        from converters.gguf.hugging_face import hugging_face_name, read_network
        from converters.gguf.language_model import (
            LanguageModel,
            RenamedWeights,
            check_complete,
            check_nothing_left,
            check_tokens,
        )
        from converters.gguf.source_tokenizer import read_source_tokenizer
        from converters.gguf.weights import SafetensorsFolder

        stored = SafetensorsFolder(model)
        network = read_network(model, stored)
        names = set(network.tensors())
        weights: Weights = RenamedWeights(stored, hugging_face_name, names)
        check_complete(network, weights, model)
        check_nothing_left(stored.names(), set(map(hugging_face_name, names)), model)
        vocabulary, encode = _vocabulary(model)
        check_tokens(vocabulary, network, model)
        if options.drop_template:
            vocabulary = replace(vocabulary, template=None)
        return LanguageModel(
            name=model.resolve().name,
            network=network,
            vocabulary=vocabulary,
            weights=weights,
            encode=encode,
            folder=model,
            notes=_notes(network.context, network.usable_context),
            source=read_source_tokenizer(model),
        )


def _vocabulary(folder: Path) -> tuple[Vocabulary, Encode]:
    from converters.gguf.sentencepiece_model import read_model
    from converters.gguf.tokenizer_json import read_settings, read_template, read_vocabulary, specials
    from converters.gguf.vocabulary import sentencepiece

    if (folder / "tokenizer.json").is_file():
        return read_vocabulary(folder)
    if not (folder / "tokenizer.model").is_file():
        what = f"{folder} has no tokenizer.json or tokenizer.model"
        raise InputError(what, "edge needs one of these files; copy the tokenizer's files into the folder")
    found = read_model(folder / "tokenizer.model")
    settings = read_settings(folder)
    found = replace(
        found,
        special={**found.special, **specials(settings, folder, found.tokens)},
        template=read_template(folder, settings),
    )
    return found, sentencepiece(found)


def _notes(context: int, usable: int) -> tuple[str, ...]:
    if usable == context:
        return ()
    return (f"the context is {usable} tokens, the sliding window of the source, which llama.cpp does not slide",)
