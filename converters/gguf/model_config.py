"""The config.json of a Hugging Face folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converters.gguf.weights import read_json

_MAX_CONFIG = 2**22
_CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length", "max_sequence_length")
_ENDINGS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ChatGLMModel")


@dataclass(frozen=True)
class ModelConfig:
    """A config.json: its path and content."""

    path: Path
    content: dict[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key."""
        return self.content.get(key, default)

    @property
    def architecture(self) -> str:
        """The class in transformers; empty if none is named."""
        names = self.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else ""

    @property
    def text(self) -> ModelConfig | None:
        """The language part of a multimodal model; None for other models."""
        inner = self.get("text_config")
        return ModelConfig(self.path, inner) if isinstance(inner, dict) else None

    @property
    def rope(self) -> ModelConfig:
        """The parameters of the rotation; transformers 5 has all of them in `rope_parameters`."""
        inner = self.get("rope_parameters") or self.get("rope_scaling") or {}
        return ModelConfig(self.path, inner if isinstance(inner, dict) else {})

    @property
    def rotations(self) -> list[ModelConfig]:
        """The parameters of the rotation by kind of layer; one if all layers have the same."""
        inner = [ModelConfig(self.path, one) for one in self.rope.content.values() if isinstance(one, dict)]
        return inner or [self.rope]

    @property
    def short_context(self) -> int | None:
        """With longrope, the length up to which the short factors apply; None for other models."""
        part = self.text or self
        if part.rope.get("rope_type", part.rope.get("type")) not in ("longrope", "su"):
            return None
        length = part.rope.get("original_max_position_embeddings") or part.get("original_max_position_embeddings")
        return length if type(length) is int and length > 0 else None

    @property
    def context(self) -> int | None:
        """The context length that it was trained with; None if unknown."""
        places = [self, self.text] if self.text else [self]
        values = [place.get(key) for place in places for key in _CONTEXT_KEYS]
        return next((value for value in values if type(value) is int and value > 0), None)


def generates_text(folder: Path) -> bool:
    """Return whether a folder's config.json names a network that generates text."""
    return (folder / "config.json").is_file() and read_config(folder).architecture.endswith(_ENDINGS)


def read_config(folder: Path) -> ModelConfig:
    """Read config.json. Raises InputError if it cannot be read."""
    path = folder / "config.json"
    return ModelConfig(path, read_json(path, _MAX_CONFIG))


def quantization(config: ModelConfig) -> str | None:
    """Return the name of the method that a model is quantized with; None if it is not."""
    entry = config.get("quantization_config")
    return str(entry.get("quant_method") or "an unnamed method") if isinstance(entry, dict) and entry else None
