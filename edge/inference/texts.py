"""Read texts, and turn them into the token ids that a model takes, with the tokenizer of the model's folder.

The tokenizer is Hugging Face's `tokenizer.json`, which the library `tokenizers` reads; it holds no code.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from converters.pytorch.hugging_face_config import TOKENIZER
from edge.inference.inputs import InlineText, Sample
from runtimes.arrays import Array
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import EngineMissingError, InputError
from runtimes.model_files.facts import TextInputs
from runtimes.registry import install_hint

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_TEXT_BYTES = 2**20  # hundreds of pages; models read the first few hundred tokens
MAX_TOKENS_KEY = "max_tokens"  # of the metadata
_MAX_TOKENIZER_BYTES = 2**27
_MAX_TOKENS = 512  # of a model that states no limit, as of most encoders
_PADDING = ("[PAD]", "<pad>", "<|pad|>")

_log = logging.getLogger(__name__)


def read_text_sample(artifact: Artifact, path: Path | InlineText, inputs: TextInputs, max_tokens: int | None) -> Sample:
    """Read a text as the model takes it; what is longer than the model takes is cut off, and logged.

    Raises InputError if the file is not a text, or the model's folder has no readable tokenizer.
    """
    start = perf_counter()
    text = read_text(path)
    specs = {spec.name: spec for spec in artifact.manifest.inputs}
    tokenizer = _tokenizer(_tokenizer_file(artifact))
    length = specs[inputs.ids].shape[1]
    limit = length if isinstance(length, int) else max_tokens or _MAX_TOKENS
    tokenizer.enable_truncation(limit)
    tokenizer.no_padding()
    found = tokenizer.encode(text)
    if found.overflowing:
        _log.warning("%s is longer than the %d tokens that the model takes: the rest is not read", path, limit)
    if not found.ids:
        raise InputError(f"{path} contains no text", "write one")
    fill = 0 if not isinstance(length, int) else length - len(found.ids)
    padding = next((i for i in map(tokenizer.token_to_id, _PADDING) if i is not None), 0)
    rows = {inputs.ids: (found.ids, padding), inputs.mask: (found.attention_mask, 0), inputs.types: (found.type_ids, 0)}
    feeds = {name: _row(values, fill, other, specs[name]) for name, (values, other) in rows.items() if name}
    return Sample(source=str(path), feeds=feeds, preprocess_ms=(perf_counter() - start) * 1000)


def read_text(path: Path | InlineText) -> str:
    """Return a UTF-8 text. Raises InputError for anything else, and for more than `MAX_TEXT_BYTES`."""
    if isinstance(path, InlineText):
        size = len(path.text.encode())
        if size > MAX_TEXT_BYTES:
            raise InputError(f"{path} has {size:,} bytes; the limit is {MAX_TEXT_BYTES:,}", "pass a part of it")
        return path.text
    try:
        size = path.stat().st_size
        if size > MAX_TEXT_BYTES:
            raise InputError(f"{path} has {size:,} bytes; the limit is {MAX_TEXT_BYTES:,}", "pass a part of it")
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "pass a .txt file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path} is not a text in UTF-8", "save it as UTF-8") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}", "pass a .txt file") from None


def _tokenizer_file(artifact: Artifact) -> Path:
    """Return the tokenizer next to the model, or above its subfolder `onnx`. Raises InputError if there is none."""
    place = tokenizer_beside(artifact.path)
    if place is None:
        what = f"{artifact.model} has no {TOKENIZER} next to it, so its token ids are not known"
        raise InputError(what, f"copy the {TOKENIZER} of the model's folder there, or pass ids as an .npz")
    return place


def tokenizer_beside(folder: Path) -> Path | None:
    """Return the tokenizer in a model's folder, or above it if that is the subfolder `onnx`; None if there is none."""
    places = [folder / TOKENIZER, *([folder.parent / TOKENIZER] if folder.name == "onnx" else [])]
    return next((place for place in places if place.is_file()), None)


def _tokenizer(path: Path) -> Tokenizer:
    if find_spec("tokenizers") is None:
        raise EngineMissingError("reading texts needs tokenizers, which is not installed", install_hint("text"))
    if path.stat().st_size > _MAX_TOKENIZER_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes: no tokenizer is that large", "use the model's own")
    return _read_tokenizer(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=2)
def _read_tokenizer(path: Path, _changed: int) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise InputError(f"{path} is not a readable tokenizer: {error}", "copy the model's own again") from None


def _row(values: list[int], fill: int, padding: int, spec: TensorSpec) -> Array:
    return np.array([[*values, *[padding] * fill]], spec.dtype)
