"""Model folders of Hugging Face (config.json and model.safetensors): encoders of pictures and of text.

Only the code in the installed `transformers` runs, never code from the folder; only safetensors are read.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import Requirement
from converters.library_calls import converting, loading
from converters.pytorch.inputs import TorchInput, TorchOptions, example_feeds
from converters.sources.source import ExportingSource, SourceHints, SourceOptions
from runtimes.errors import InputError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from runtimes.artifact.json_fields import JsonObject, JsonValue

_LONGEST_TEXT = 128  # tokens, if the configuration has no length
_PICTURES, _TOKENS, _MASK = "pixel_values", "input_ids", "attention_mask"
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_OTHERS = ("manifest.json", "saved_model.pb")  # an artifact, a SavedModel


class HuggingfaceSource(ExportingSource):
    """Encoders of pictures and of text, as `save_pretrained` writes them."""

    id = "huggingface"
    requires = (Requirement("torch"), Requirement("transformers"), Requirement("safetensors", "transformers"))
    Options = TorchOptions

    def recognizes(self, path: Path) -> bool:
        """See `Source`."""
        return (path / "config.json").is_file() and not any((path / name).exists() for name in _OTHERS)

    def check(self, path: Path, options: SourceOptions) -> None:
        """Raise UsageError for malformed inputs; without any, the folder's configuration describes them."""
        self.Options.of(options).read_inputs(path)

    def hints(self, path: Path) -> SourceHints:
        """Return the labels, the preprocessing and the output from the folder's configuration."""
        from converters.pytorch.hugging_face_config import read_folder

        return read_folder(path)

    def export(self, path: Path, options: SourceOptions, folder: Path) -> Path:
        """See `ExportingSource`."""
        from converters.pytorch.exported_program import write_program

        program = folder / f"{path.stem}.pt2"
        module, feeds = _load(path, self.Options.of(options).read_inputs(path))
        write_program(module, feeds, program, str(path))
        return program


def _load(folder: Path, inputs: Sequence[TorchInput]) -> tuple[Any, dict[str, Tensor]]:
    """Return a module whose inputs and outputs are tensors by name, and matching feeds.

    `inputs` override the shapes in the folder's configuration. Raises InputError for folders that need more than the
    installed library, for pickled weights, and for models that are not encoders.
    """
    model = _model(folder, _configuration(folder))
    feeds: dict[str, Tensor] = example_feeds(_inputs(model, folder, inputs))
    with converting(folder, "transformers"):
        return _plain(model, feeds), feeds


def _configuration(folder: Path) -> JsonObject:
    from converters.pytorch.hugging_face_config import CONFIG, read_json

    path = folder / CONFIG
    found = read_json(path)
    if "model_type" not in found:
        raise InputError(f"{path} has no model_type", "give a folder that `save_pretrained` wrote")
    if "auto_map" in found:
        what = f"{folder} needs its own code, which edge does not run"
        raise InputError(what, "export it yourself with torch.export, or give module:callable")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        raise _no_weights(folder)
    return found


def _no_weights(folder: Path) -> InputError:
    if list(folder.glob("*.bin")):
        what = f"{folder} holds pickled weights (.bin), which could run any code and are never opened"
        hint = "if you trust them: AutoModel.from_pretrained(folder).save_pretrained(folder) writes safetensors"
        return InputError(what, hint)
    return InputError(
        f"{folder} holds no model.safetensors",
        "give a folder with the weights as safetensors, as `save_pretrained` writes them",
    )


def _model(folder: Path, configuration: Mapping[str, JsonValue]) -> Any:
    from converters.pytorch.hugging_face_config import architecture

    with loading(folder, "a Hugging Face model"):
        import torch
        import transformers

        transformers.utils.logging.disable_progress_bar()
        name = architecture(configuration) or "AutoModel"
        kind = getattr(transformers, name, None)
        if kind is None:
            raise InputError(f"the installed transformers has no {name}", "pip install --upgrade transformers")
        _check_kind(name, configuration, folder)
        model = kind.from_pretrained(
            folder, local_files_only=True, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
        )
        return model.eval()


def _check_kind(name: str, configuration: Mapping[str, JsonValue], folder: Path) -> None:
    if configuration.get("is_encoder_decoder") or name.endswith(
        ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    ):
        what = f"{folder} ({name}) generates text; in this format only encoders are converted"
        raise InputError(what, f"convert a language model with --to gguf instead: edge convert {folder} --to gguf")


def _inputs(model: Any, folder: Path, requested: Sequence[TorchInput]) -> list[TorchInput]:
    """Return the model's inputs: the requested ones, else pictures, or token ids and their mask."""
    if requested:
        if requested[0].name is None and len(requested) == 1:
            return [TorchInput(name=model.main_input_name, shape=requested[0].shape, dtype=requested[0].dtype)]
        if requested[0].name is None:
            raise UsageError(f"{folder} takes inputs by name", f"such as --input {model.main_input_name}=...")
        return list(requested)
    if model.main_input_name == _PICTURES:
        return [TorchInput(name=_PICTURES, shape=_picture_shape(model.config, folder))]
    if model.main_input_name != _TOKENS:
        what = f"{folder} takes {model.main_input_name}; edge can only choose shapes for pictures and text"
        raise InputError(what, f"pass its shape with --input {model.main_input_name}=1x16000")
    longest = getattr(model.config, "max_position_embeddings", None) or _LONGEST_TEXT
    shape = (1, min(int(longest), _LONGEST_TEXT))
    has_mask = _MASK in inspect.signature(model.forward).parameters
    return [TorchInput(name=name, shape=shape, dtype="int64") for name in (_TOKENS, *([_MASK] if has_mask else []))]


def _picture_shape(config: Any, folder: Path) -> tuple[int, ...]:
    from converters.pytorch.hugging_face_config import picture_size

    size = getattr(config, "image_size", None) or picture_size(folder)
    if size is None:
        raise UsageError(f"{folder} does not define the size of its pictures", "pass it with --input 1x3x224x224")
    sides = (size, size) if isinstance(size, int) else tuple(size)
    return (1, getattr(config, "num_channels", 3), *map(int, sides))


def _plain(model: Any, feeds: dict[str, Tensor]) -> Any:
    """Return the model with only the tensors of its output."""
    import torch

    with torch.no_grad():
        kept = [name for name, value in model(**feeds).items() if isinstance(value, torch.Tensor)]

    class Plain(torch.nn.Module):  # type: ignore[misc,unused-ignore] # a class of a library without types
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, **tensors: Tensor) -> dict[str, Tensor]:
            answer = self.model(**tensors)
            return {name: answer[name] for name in kept}

    return Plain().eval()
