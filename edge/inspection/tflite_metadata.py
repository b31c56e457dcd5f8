"""Read the metadata that authors add to a TFLite file: the normalization of its inputs, and the labels of its outputs.

Field numbers are positions in the tables of tensorflow/lite/schema/metadata_schema.fbs (TFLite Support, Apache-2.0).
Label files are in a zip archive that is appended to the model.
"""

from __future__ import annotations

import ast
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

from converters.tflite.reader import TfliteModel
from converters.wire.flatbuffer import Table
from edge.inspection.archive import Archive
from runtimes.artifact.json_fields import JsonObject, JsonValue
from runtimes.artifact.labels import MAX_LABELS_BYTES, parse_labels

_KEY = "TFLITE_METADATA"
_NORMALIZATION = 1  # of union ProcessUnitOptions
_PROPERTIES = ("metadata.json", "temp_meta.txt")  # ultralytics, today and until 2025
_MAX_PROPERTIES_BYTES = 2**20
_LABELS = (2, 3)  # of enum AssociatedFileType: labels of an axis, labels of values


@dataclass(frozen=True, kw_only=True)
class TfliteMetadata:
    """The author's metadata.

    name, description, version, author, license: Texts by the author.
    mean, std: The first input expects (pixel − mean) ÷ std; one value per channel, or one for all.
    label_file: The file with the labels of the first output that has any.
    associated_files: All files that are packed with the model.
    """

    name: str
    description: str
    version: str
    author: str
    license: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_file: str | None
    associated_files: tuple[str, ...]

    def as_dict(self) -> JsonObject:
        """Return the values that are set."""
        return {key: value for key, value in asdict(self).items() if value}


def read_metadata(model: TfliteModel) -> TfliteMetadata | None:
    """Read the author's metadata; None if the file has none. Raises InputError if it is broken."""
    content = model.metadata.get(_KEY)
    if content is None:
        return None
    root = Table.root(content)
    graph = next(iter(root.tables(3)), None)
    inputs, outputs = (graph.tables(2), graph.tables(3)) if graph else ([], [])
    mean, std = _normalization(inputs[0]) if inputs else ((), ())
    packed = root.tables(6) + [file for tensor in (*inputs, *outputs) for file in tensor.tables(6)]
    return TfliteMetadata(
        name=root.text(0),
        description=root.text(1),
        version=root.text(2),
        author=root.text(4),
        license=root.text(5),
        mean=mean,
        std=std,
        label_file=next((name for name in map(_label_file, outputs) if name), None),
        associated_files=tuple(dict.fromkeys(file.text(0) for file in packed)),
    )


def read_labels(path: Path, metadata: TfliteMetadata) -> tuple[str, ...] | None:
    """Read the labels, one per class; None if there are none."""
    if metadata.label_file is None:
        return None
    with Archive(path) as archive:
        content = archive.read(metadata.label_file, MAX_LABELS_BYTES)
    return tuple(parse_labels(content, errors="replace"))


def read_packed_properties(path: Path) -> dict[str, JsonValue]:
    """Read the properties that ultralytics packs with a model, as JSON or as a Python dictionary; empty if none."""
    if not zipfile.is_zipfile(path):
        return {}
    with Archive(path) as archive:
        name = next((name for name in archive.names() if name in _PROPERTIES), None)
        text = archive.read(name, _MAX_PROPERTIES_BYTES).decode("utf-8", errors="replace") if name else "{}"
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
    return {}


def _normalization(tensor: Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.number(0, "B") == _NORMALIZATION and options is not None:
            return options.numbers(0, "f"), options.numbers(1, "f")
    return (), ()


def _label_file(tensor: Table) -> str | None:
    return next((file.text(0) for file in tensor.tables(6) if file.number(2, "b") in _LABELS), None)
