"""Interpret the properties that exporters write into model files: ultralytics, and OpenVINO's Model API.

Ultralytics writes strings into ONNX (metadata_props) and TFLite (packed files): `task`, `names`, `stride`, `imgsz`,
`args`. Its exports take RGB pixels in 0…1, letterboxed with gray 114; classifiers take a center crop. OpenVINO's Model
API reads `model_info` from the IR: `scale_values`, `mean_values`, `reverse_input_channels`, `resize_type`, `pad_value`,
`labels` (separated by spaces, with underscores inside a name).
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from runtimes.artifact.labels import MAX_LABELS_BYTES
from runtimes.model_files.facts import Labels

_TASKS = {
    "detect": "detection",
    "classify": "classification",
    "segment": "instances",
    "pose": "pose",
    "obb": "oriented_boxes",
}
_RESIZES = {
    "fit_to_window_letterbox": "letterbox",
    "standard": "stretch",
    "crop": "shorter_side",
}
_LETTERBOX_GRAY = 114
_RT_DETR = "RTDETRDecoder"
_MAX_DIGITS = 9  # of the index of a class


@dataclass(frozen=True, kw_only=True)
class AuthorPictures:
    """How a picture becomes the input, as in `Preprocess`; None for what the properties leave out."""

    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    resize: str | None = None
    pad: int | None = None
    color: str | None = None


def is_ultralytics(properties: Mapping[str, str]) -> bool:
    """Return whether ultralytics, or YOLOv5 before it, wrote the properties."""
    return "stride" in properties and "names" in properties


def task_of(properties: Mapping[str, str]) -> str | None:
    """Return the id of the task that the properties name; also one that edge has no decoder for."""
    return _TASKS.get(properties.get("task", "")) if is_ultralytics(properties) else None


def author_labels(properties: Mapping[str, str]) -> Labels | None:
    """Return the class names: a Python dictionary, {0: 'tench', 1: 'goldfish'}, its form in JSON, or a list."""
    names = _literal(properties.get("names", ""))
    values = names if isinstance(names, list) else ()
    if isinstance(names, dict):  # in the order of the indices, where they are those of a list
        names = {_index(key): value for key, value in names.items()}
        is_list = set(names) == set(range(len(names)))
        values = [names[index] for index in range(len(names))] if is_list else list(names.values())
    if values:
        return Labels(tuple(str(value) for value in values), "the property 'names'")
    words = properties.get("labels", "")[:MAX_LABELS_BYTES].split()
    return Labels(tuple(word.replace("_", " ") for word in words), "the property 'labels'") if words else None


def pictures_of(properties: Mapping[str, str]) -> AuthorPictures:
    """Return how a picture becomes the input."""
    if is_ultralytics(properties):
        is_letterboxed = properties.get("task") != "classify" and properties.get("head") != _RT_DETR
        resize = (
            "letterbox" if is_letterboxed else "shorter_side" if properties.get("task") == "classify" else "stretch"
        )
        zeros, scale = (0.0,) * 3, (1 / 255,) * 3
        return AuthorPictures(mean=zeros, scale=scale, resize=resize, pad=_LETTERBOX_GRAY, color="RGB")
    divisors, means = _three(properties.get("scale_values", "")), _three(properties.get("mean_values", ""))
    is_scaled = bool((divisors and all(divisors)) or means)
    order = {"YES": "RGB", "NO": "BGR"}  # the Model API reads pictures in BGR
    pad = properties.get("pad_value", "")
    return AuthorPictures(
        mean=(means or (0.0,) * 3) if is_scaled else None,
        scale=(tuple(1 / value for value in divisors) if divisors and all(divisors) else (1.0,) * 3)
        if is_scaled
        else None,
        resize=_RESIZES.get(properties.get("resize_type", "")),
        pad=int(pad) if pad.isdecimal() and len(pad) <= 3 and int(pad) < 256 else None,
        color=order.get(properties.get("reverse_input_channels", "").upper()),
    )


def _literal(text: str) -> Any:
    """Return the value of a text in JSON or of a Python literal; None for anything else."""
    if len(text) > MAX_LABELS_BYTES:
        return None
    parsers: tuple[Callable[[str], Any], ...] = (json.loads, ast.literal_eval)
    for parse in parsers:
        try:
            return parse(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    return None


def _index(key: object) -> object:
    """Return the number that a key stands for: in JSON, all keys are strings."""
    return int(key) if isinstance(key, str) and key.isdecimal() and len(key) <= _MAX_DIGITS else key


def _three(text: str) -> tuple[float, ...]:
    """Parse one number or three, separated by spaces; empty for anything else."""
    try:
        values = tuple(float(word) for word in text.split()[:4])
    except ValueError:
        return ()
    return values * (3 // len(values)) if len(values) in (1, 3) else ()
