"""Create a copy of a Hugging Face folder that is safe for llama.cpp's converter: only data files, and a neutral name.

The converter runs a folder's Python code for some families, takes `general.name` from the folder's name (where
"phi3" changes llama.cpp's behavior), and only supports the configuration of transformers 4. So weights are linked,
JSON files are rewritten without references to code and in the form of transformers 4, and other files are left out.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path

from converters.gguf.older_config import older_config, older_tokenizer_config
from converters.gguf.weights import check_size, read_json, weight_files
from runtimes.artifact.json_fields import JsonObject, JsonValue

_MAX_JSON = 256 * 2**20
_MAX_DATA = 256 * 2**20
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_CONFIGS = ("config.json", "tokenizer_config.json", "generation_config.json", *_PROCESSORS)
_DATA = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "rwkv_vocab_v20230424.txt",
    "chat_template.jinja",
    "chat_template.json",
)
# Keys that refer to code, other files or the network.
_LEADING = ("auto_map", "_name_or_path", "custom_pipelines", "backend", "is_local", "local_files_only")


class TemporaryFolder:
    """A folder that lives as long as this object, for weights that are loaded on demand."""

    def __init__(self, parent: str | None = None) -> None:
        if parent is not None:
            Path(parent).mkdir(parents=True, exist_ok=True)
        self.path = Path(tempfile.mkdtemp(prefix="edge-merged-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def stage(folder: Path, place: Path, without_template: bool = False, renewed: bool = True) -> Path:
    """Create the folder `place` from `folder`. Raises InputError for broken files, or names outside the folder.

    The configuration is rewritten for transformers 4 if `renewed`; code is always left out.
    """
    place.mkdir(parents=True)
    for file in sorted(weight_files(folder)):
        (place / file.name).symlink_to(file.resolve())
    for name in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if not (folder / name).is_file():
            continue
        index = read_json(folder / name, _MAX_JSON)
        files = index.get("weight_map", {})
        if isinstance(files, dict) and all((place / str(one)).is_symlink() for one in files.values()):
            _write(place / name, index)
    for name in _DATA:
        if (folder / name).is_file() and not (without_template and name.startswith("chat_template")):
            if name.endswith(".json") and name != "tokenizer.json":  # which has been read before
                read_json(folder / name, _MAX_DATA)  # the converter's error for a broken one does not name the file
            else:
                check_size(folder / name, _MAX_DATA)
            (place / name).symlink_to((folder / name).resolve())
    for name in _CONFIGS:
        if not (folder / name).is_file():
            continue
        document = _without_code(read_json(folder / name, _MAX_JSON))
        if without_template:
            document.pop("chat_template", None)
        if renewed and name == "config.json":
            document = older_config(document)
        if renewed and name == "tokenizer_config.json":
            document = older_tokenizer_config(document, place)
        _write(place / name, document)
    if renewed and not (place / "tokenizer_config.json").exists():
        _write(place / "tokenizer_config.json", older_tokenizer_config({}, place))
    return place


def _without_code(config: Mapping[str, JsonValue]) -> JsonObject:
    return {
        key: _without_code(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in config.items()
        if key not in _LEADING
    }


def _write(path: Path, document: Mapping[str, JsonValue]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
