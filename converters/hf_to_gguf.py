"""A Hugging Face folder of the LLaMA family to GGUF: config.json, safetensors, tokenizer.json or tokenizer.model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from converters.gguf.hugging_face import check_architecture, hugging_face_name, read_network
from converters.gguf.lora import Lora, Merged
from converters.gguf.model import LanguageModel, Renamed, check_complete, check_nothing_left
from converters.gguf.sentencepiece_model import read_model
from converters.gguf.step import GgufStep
from converters.gguf.tokenizer_json import read_settings, read_template, read_vocabulary, specials
from converters.gguf.vocabulary import Encode, Vocabulary, sentencepiece
from converters.gguf.weights import SafetensorsFolder, Weights
from converters.steps import StepOptions
from runtimes.errors import InputError


class Step(GgufStep):
    """See `converters.steps.Step`."""

    source = "hf"

    def open(self, model: Path, options: StepOptions) -> LanguageModel:
        """The model of a folder, with the LoRA of `options.lora` in it; InputError for what is broken or unknown."""
        if not model.is_dir():
            raise InputError(f"{model} is no Hugging Face folder", "give the folder that holds config.json")
        check_architecture(model)
        stored = SafetensorsFolder(model)
        network = read_network(model, stored)
        names = set(network.tensors())
        weights: Weights = Renamed(stored, hugging_face_name, names)
        check_complete(network, weights, model)
        check_nothing_left(stored.names(), set(map(hugging_face_name, names)), model)
        vocabulary, encode = _vocabulary(model)
        if len(vocabulary.tokens) > network.vocabulary:
            what = f"{model} has {len(vocabulary.tokens)} tokens and embeddings for {network.vocabulary} of them"
            raise InputError(what, "check that tokenizer and weights belong together")
        if options.drop_template:
            vocabulary = replace(vocabulary, template=None)
        if options.lora:
            weights = Merged(weights, Lora(Path(options.lora), network))
        return LanguageModel(
            name=model.resolve().name,
            network=network,
            vocabulary=vocabulary,
            weights=weights,
            encode=encode,
            folder=None if options.lora else model,
            notes=_notes(network.context, network.usable_context),
        )


def _vocabulary(folder: Path) -> tuple[Vocabulary, Encode]:
    if (folder / "tokenizer.json").is_file():
        return read_vocabulary(folder)
    if not (folder / "tokenizer.model").is_file():
        raise InputError(f"{folder} holds no tokenizer.json or tokenizer.model", "check that the folder is complete")
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
