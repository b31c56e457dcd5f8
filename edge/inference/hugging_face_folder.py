"""Read what Hugging Face writes next to an ONNX model: `config.json` and `preprocessor_config.json`.

Exports put the model into the folder itself or into its subfolder `onnx`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from converters.pytorch.hugging_face_config import CONFIG, PROCESSOR, architecture, class_labels, read_json
from edge.inspection import Inspection
from runtimes.artifact.json_fields import JsonObject, JsonValue

_SUBFOLDER = "onnx"
_TASKS = {
    "ForObjectDetection": "detection",
    "ForImageClassification": "classification",
    "ForSemanticSegmentation": "segmentation",
}
ARCHITECTURE, LABELS_FILE = "architecture", "labels_from"


def with_folder(found: Inspection, model: Path) -> Inspection:
    """Add the architecture, the class names and the normalization, unless the file has its own.

    Raises InputError if a file of the folder is broken.
    """
    folder = next((one for one in _folders(model) if (one / CONFIG).is_file()), None)
    if found.format != "onnx" or folder is None:
        return found
    config = read_json(folder / CONFIG)
    name = architecture(config)
    if not name:
        return found
    metadata: dict[str, JsonValue] = {**_normalization(folder), **found.metadata, ARCHITECTURE: name}
    labels = found.labels
    if labels is None and (names := class_labels(config, folder / CONFIG)):
        labels, metadata[LABELS_FILE] = names, CONFIG
    return replace(found, metadata=metadata, labels=labels)


def task_of_architecture(name: str) -> str | None:
    """Return the task of a class of transformers, such as DetrForObjectDetection."""
    return next((task for ending, task in _TASKS.items() if name.endswith(ending)), None)


def _folders(model: Path) -> list[Path]:
    return [model.parent, model.parent.parent] if model.parent.name == _SUBFOLDER else [model.parent]


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
