"""Read what Hugging Face writes next to an ONNX model: `config.json`, `preprocessor_config.json`, and what
sentence-transformers adds: `modules.json`, `1_Pooling/config.json` and `sentence_bert_config.json`.

Exports put the model into the folder itself or into its subfolder `onnx`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from converters.pytorch.hugging_face_config import CONFIG, PROCESSOR, architecture, class_labels, read_json
from edge.inference.texts import MAX_TOKENS_KEY
from edge.inspection import Inspection
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.errors import InputError
from runtimes.tasks.embedding import NORMALIZED, POOLING

_SUBFOLDER = "onnx"
_TASKS = {
    "ForObjectDetection": "detection",
    "ForImageClassification": "classification",
    "ForSemanticSegmentation": "segmentation",
    "ForSequenceClassification": "text",
}
_MODULES, _LENGTH, _TOKENIZER_CONFIG = "modules.json", "sentence_bert_config.json", "tokenizer_config.json"
_MAX_MODULES_BYTES = 2**20
_MAX_TOKENS = 2**15  # a tokenizer without a limit says 10³⁰
ARCHITECTURE, LABELS_FILE = "architecture", "labels_from"


def with_folder(found: Inspection, model: Path, given: Path | None = None) -> Inspection:
    """Add the architecture, the class names and the normalization, unless the file has its own.

    given: The folder that the model was exported from; None looks next to the model.

    Raises InputError if a file of the folder is broken.
    """
    folder = next((one for one in ([given] if given else _folders(model)) if (one / CONFIG).is_file()), None)
    if folder is None or (given is None and found.format != "onnx"):
        return found
    config = read_json(folder / CONFIG)
    name = architecture(config)
    if not name:
        return found
    metadata: dict[str, JsonValue] = {
        **_normalization(folder),
        **_sentences(folder),
        **found.metadata,
        ARCHITECTURE: name,
    }
    labels = found.labels
    if labels is None and (names := class_labels(config, folder / CONFIG)):
        labels, metadata[LABELS_FILE] = names, CONFIG
    return replace(found, metadata=metadata, labels=labels)


def task_of_architecture(name: str) -> str | None:
    """Return the task of a class of transformers, such as DetrForObjectDetection."""
    return next((task for ending, task in _TASKS.items() if name.endswith(ending)), None)


def _folders(model: Path) -> list[Path]:
    return [model.parent, model.parent.parent] if model.parent.name == _SUBFOLDER else [model.parent]


def _sentences(folder: Path) -> JsonObject:
    """Return how the vectors of tokens become that of a text, and how many tokens a text may have."""
    lengths = [_whole(folder / _LENGTH, "max_seq_length"), _whole(folder / _TOKENIZER_CONFIG, "model_max_length")]
    known = [one for one in lengths if one is not None]
    found: JsonObject = {MAX_TOKENS_KEY: str(min(known))} if known else {}
    kinds = {str(one.get("type", "")).rsplit(".", 1)[-1]: one for one in _modules(folder)}
    if "Pooling" not in kinds:
        return found
    place = folder / Path(str(kinds["Pooling"].get("path", ""))).name / CONFIG
    pooling = read_json(place) if place.is_file() else {}
    if pooling.get("pooling_mode_mean_tokens") is True or pooling.get("pooling_mode_cls_token") is True:
        found[POOLING] = "mean" if pooling.get("pooling_mode_mean_tokens") is True else "first"
    if "Normalize" in kinds:
        found[NORMALIZED] = "true"
    return found


def _modules(folder: Path) -> list[JsonObject]:
    path = folder / _MODULES
    if not path.is_file() or path.stat().st_size > _MAX_MODULES_BYTES:
        return []
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", "copy the model's folder again") from None
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def _whole(path: Path, key: str) -> int | None:
    value = read_json(path).get(key) if path.is_file() else None
    return int(value) if isinstance(value, int | float) and 0 < value <= _MAX_TOKENS else None


def _normalization(folder: Path) -> JsonObject:
    """Return `mean` and `std` in pixels: (pixel × factor − mean) ÷ std is (pixel − mean ÷ factor) ÷ (std ÷ factor)."""
    path = folder / PROCESSOR
    found: Mapping[str, JsonValue] = read_json(path) if path.is_file() else {}
    factor = found.get("rescale_factor", 1 / 255) if found.get("do_rescale", True) else 1.0
    if not found or not isinstance(factor, float | int) or factor <= 0:
        return {}
    if found.get("do_normalize") is False:
        return {"mean": [0.0], "std": [1 / factor]}
    means, deviations = _three(found.get("image_mean")), _three(found.get("image_std"))
    if not means or not deviations or min(deviations) <= 0:
        return {}
    return {"mean": [value / factor for value in means], "std": [value / factor for value in deviations]}


def _three(value: JsonValue) -> list[float]:
    numbers = [float(one) for one in value if isinstance(one, int | float)] if isinstance(value, list) else []
    return numbers if len(numbers) == 3 else []
