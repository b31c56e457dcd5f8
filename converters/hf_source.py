"""Model folders of Hugging Face (config.json and model.safetensors): encoders of pictures and of text.

Only the code in the installed `transformers` runs, never code from the folder; only safetensors are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.hf_folder import CONFIG, picture_size, read_json
from converters.quiet import converting, loading
from converters.steps import check_library
from converters.torch_source import TorchInput, example_feeds
from runtimes.errors import InputError, UsageError

_LONGEST_TEXT = 128  # tokens, where nobody says otherwise
_PICTURES, _TOKENS, _MASK = "pixel_values", "input_ids", "attention_mask"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def load_folder(folder: Path, inputs: Sequence[TorchInput]) -> tuple[Any, dict[str, Any]]:
    """A module of tensors by name, answering with the model's tensors by name, and feeds that fit it.

    `inputs` override what the folder's configuration tells of shapes. InputError for folders that need more than the
    installed library, for pickled weights, and for models that are no encoders.
    """
    check_library("torch", str(folder))
    check_library("transformers", str(folder))
    check_library("safetensors", str(folder))
    model = _model(folder, _configuration(folder))
    feeds: dict[str, Any] = example_feeds(_inputs(model, folder, inputs))
    with converting(folder, "transformers"):
        return _plain(model, feeds), feeds


def _configuration(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    found = read_json(path)
    if "model_type" not in found:
        raise InputError(f"{path} names no model_type", "give a folder that `save_pretrained` wrote")
    if "auto_map" in found:
        what = f"{folder} brings its own code, which is not run"
        raise InputError(what, "export it yourself with torch.export, or give module:callable")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise _no_weights(folder)
    return found


def _no_weights(folder: Path) -> InputError:
    if list(folder.glob("*.bin")):
        what = f"{folder} holds pickled weights (.bin), which could run any code and are never opened"
        hint = "where you trust them: AutoModel.from_pretrained(folder).save_pretrained(folder) writes safetensors"
        return InputError(what, hint)
    return InputError(f"{folder} holds no model.safetensors", "check that the folder is complete")


def _model(folder: Path, configuration: Mapping[str, Any]) -> Any:
    with loading(folder, "a Hugging Face model"):
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        names = configuration.get("architectures") or ["AutoModel"]
        kind = getattr(transformers, str(names[0]), None)
        if kind is None:
            raise InputError(f"the installed transformers knows no {names[0]}", "pip install --upgrade transformers")
        _check_kind(str(names[0]), configuration, folder)
        model = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
        return model.eval()


def _check_kind(name: str, configuration: Mapping[str, Any], folder: Path) -> None:
    if configuration.get("is_encoder_decoder") or name.endswith(
        ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    ):
        what = f"{folder} ({name}) writes text word by word; only encoders are converted"
        raise InputError(what, "convert a language model to .gguf with llama.cpp instead")


def _inputs(model: Any, folder: Path, said: Sequence[TorchInput]) -> list[TorchInput]:
    """What the model takes: pictures, or token ids and their mask."""
    if said:
        if said[0].name is None and len(said) == 1:
            return [TorchInput(model.main_input_name, said[0].shape, said[0].dtype)]
        if said[0].name is None:
            raise UsageError(f"{folder} takes inputs by name", f"such as --input {model.main_input_name}=...")
        return list(said)
    if model.main_input_name == _PICTURES:
        return [TorchInput(_PICTURES, _picture_shape(model.config, folder))]
    if model.main_input_name != _TOKENS:
        what = f"{folder} takes {model.main_input_name}; pictures and text are known here"
        raise InputError(what, f"say its shape with --input {model.main_input_name}=1x16000")
    longest = getattr(model.config, "max_position_embeddings", None) or _LONGEST_TEXT
    shape = (1, min(int(longest), _LONGEST_TEXT))
    has_mask = _MASK in inspect.signature(model.forward).parameters
    return [TorchInput(name, shape, "int64") for name in (_TOKENS, *([_MASK] if has_mask else []))]


def _picture_shape(config: Any, folder: Path) -> tuple[int, ...]:
    size = getattr(config, "image_size", None) or picture_size(folder)
    if size is None:
        raise UsageError(f"{folder} does not say how large its pictures are", "say it with --input 1x3x224x224")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return (1, getattr(config, "num_channels", 3), *map(int, sides))


def _plain(model: Any, feeds: dict[str, Any]) -> Any:
    """The model without everything but tensors in its answer."""
    import torch

    with torch.no_grad():
        kept = [name for name, value in model(**feeds).items() if isinstance(value, torch.Tensor)]

    class Plain(torch.nn.Module):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **tensors: Any) -> dict[str, Any]:
            answer = self.model(**tensors)
            return {name: answer[name] for name in kept}

    return Plain().eval()
