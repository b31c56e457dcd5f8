"""Saving a Keras model with the same bytes for the same model."""

from __future__ import annotations

import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

# 1 January 1980: the earliest time that a zip archive can hold.
_EPOCH = (1980, 1, 1, 0, 0, 0)


def save_keras(model: Any, path: Path) -> None:
    """Save `model` as `path` (`.keras`) without what differs from one run to the next.

    Keras writes the moment of saving (into metadata.json and the zip entries) and the memory addresses of shared
    objects (into config.json); the weights' own HDF5 file has neither.
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "model.keras"
        keras.saving.save_model(model, raw)
        with zipfile.ZipFile(raw) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as target:
            for name in sorted(source.namelist()):
                target.writestr(zipfile.ZipInfo(name, _EPOCH), _stable(name, source.read(name)))


def _stable(name: str, content: bytes) -> bytes:
    if not name.endswith(".json"):
        return content
    document = json.loads(content)
    if name == "metadata.json":
        document["date_saved"] = "1980-01-01@00:00:00"
    return json.dumps(_renumbered(document, {}), sort_keys=True).encode()


def _renumbered(value: Any, numbers: dict[int, int]) -> Any:
    """Shared objects numbered 1, 2, … by first appearance instead of by address."""
    if isinstance(value, list):
        return [_renumbered(item, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: numbers.setdefault(item, len(numbers) + 1) if key == "shared_object_id" else _renumbered(item, numbers)
        for key, item in value.items()
    }
