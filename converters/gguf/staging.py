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
# By model type: what transformers always computes and does not write into config.json, and the converter asks for.
_LEFT_OUT: dict[str, JsonObject] = {
    "cohere2": {"rotary_pct": 1.0},
    "deepseek_v3": {"scoring_func": "sigmoid"},
}
# transformers' own names of architectures that the converter only knows by the names of their makers.
OTHER_NAMES = {"MptForCausalLM": "MPTForCausalLM"}
# Models that the converter knows by the class of their text part, and for pictures by their own.
_BY_TEXT_PART = (
    "Idefics3ForConditionalGeneration",
    "Lfm2VlForConditionalGeneration",
    "SmolVLMForConditionalGeneration",
)
# The class of a text part that has only a `model_type`, as transformers saves it.
_TEXT_CLASSES = {
    "lfm2": "Lfm2ForCausalLM",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
}
# Tokenizer classes of transformers 5, which 4 does not have.
_GENERIC = (None, "TokenizersBackend", "PythonBackend")


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


def older_config(config: Mapping[str, JsonValue]) -> JsonObject:
    """Rewrite config.json as in transformers 4: with separate `rope_theta` and `rope_scaling`, and `torch_dtype`."""
    found = {
        key: older_config(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in config.items()
    }
    if "dtype" in found:
        found.setdefault("torch_dtype", found.pop("dtype"))
    if found.get("multi_query") is True and found.get("new_decoder_architecture") is False:
        found["num_kv_heads"] = 1  # transformers 5 writes the number of heads, but the first Falcons share one
    rope = found.pop("rope_parameters", None)
    if isinstance(rope, dict):
        found |= _older_rope(rope, str(found.get("model_type")))
    if found.get("model_type") == "gpt2" and "n_positions" in found:
        found.setdefault("n_ctx", found["n_positions"])  # transformers 5 leaves it out
    found = {**_LEFT_OUT.get(str(found.get("model_type")), {}), **found}
    names = found.get("architectures")
    if isinstance(names, list):
        found["architectures"] = [OTHER_NAMES.get(str(name), name) for name in names]
    if name := text_class(found):
        found["text_config"] = {**_object(found["text_config"]), "architectures": [name]}
    return found


def text_class(config: Mapping[str, JsonValue]) -> str:
    """Return the class of the text part of a model that sees pictures; empty for other models, and if it is unknown."""
    text, names = _object(config.get("text_config")), config.get("architectures")
    named = text.get("architectures")
    if isinstance(named, list) and named:
        return str(named[0])
    is_needed = isinstance(names, list) and bool(names) and names[0] in _BY_TEXT_PART
    return _TEXT_CLASSES.get(str(text.get("model_type")), "") if is_needed else ""


def _older_rope(rope: Mapping[str, JsonValue], model_type: str) -> JsonObject:
    if any(isinstance(one, dict) for one in rope.values()):  # by kind of layer, as in Gemma 3
        full, sliding = _object(rope.get("full_attention")), _object(rope.get("sliding_attention"))
        found = _older_rope(full, model_type) if full else {}
        return found | ({"rope_local_base_freq": sliding["rope_theta"]} if "rope_theta" in sliding else {})
    rest = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    found = {key: rope[key] for key in ("rope_theta", "partial_rotary_factor") if rope.get(key) is not None}
    if model_type == "gpt_neox":
        names = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}
        found |= {names[key]: value for key, value in found.items()}
    kind = rest.get("rope_type", rest.get("type", "default"))
    is_plain = kind in ("default", None) and "mrope_section" not in rest  # which Qwen-VL has
    return found | ({} if is_plain else {"rope_scaling": rest})


def older_tokenizer_config(config: Mapping[str, JsonValue], place: Path) -> JsonObject:
    """Rewrite tokenizer_config.json as in transformers 4."""
    found = dict(config)
    if found.get("tokenizer_class") in _GENERIC:
        found.pop("tokenizer_class", None)
        if (place / "tokenizer.json").is_file():
            found["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(found.get("extra_special_tokens"), list):
        found.setdefault("additional_special_tokens", found.pop("extra_special_tokens"))
    return found


def _without_code(config: Mapping[str, JsonValue]) -> JsonObject:
    return {
        key: _without_code(value) if isinstance(value, dict) and key.endswith("_config") else value
        for key, value in config.items()
        if key not in _LEADING
    }


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, Mapping) else {}


def _write(path: Path, document: Mapping[str, JsonValue]) -> None:
    path.write_text(json.dumps(document, ensure_ascii=False), encoding="utf-8")
