"""The metadata that authors put into a TFLite file: what its inputs expect, and the labels of its outputs.

Field numbers are places in the tables of tensorflow/lite/schema/metadata_schema.fbs (TFLite Support, Apache-2.0).
Label files lie in a zip archive behind the model, in the same file.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from converters.flatbuffer import Table
from converters.tflite_graph import TfliteModel
from edge.inspection.archive import Archive

_KEY = "TFLITE_METADATA"
_NORMALIZATION = 1  # of union ProcessUnitOptions
_LABELS = (2, 3)  # of enum AssociatedFileType: labels of an axis, labels of values
_LARGEST_LABELS = 4 * 2**20


@dataclass(frozen=True)
class TfliteMetadata:
    """Texts of the author; `mean` and `std`: the first input expects (pixel − mean) ÷ std, per channel or for all.

    `label_file` names the first output's labels; `associated_files` everything that is packed with the model.
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

    def as_dict(self) -> dict[str, Any]:
        """What is set, as plain values."""
        return {key: value for key, value in asdict(self).items() if value}


def read_metadata(model: TfliteModel) -> TfliteMetadata | None:
    """The author's metadata, or None where the file has none; InputError when it is broken."""
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
        label_file=_label_file(outputs[0]) if outputs else None,
        associated_files=tuple(dict.fromkeys(file.text(0) for file in packed)),
    )


def read_labels(path: Path, metadata: TfliteMetadata) -> tuple[str, ...] | None:
    """The first output's labels, one for each class, or None where there are none."""
    if metadata.label_file is None:
        return None
    with Archive(path) as archive:
        text = archive.read(metadata.label_file, _LARGEST_LABELS).decode("utf-8", "replace")
    return tuple(line.strip() for line in text.splitlines())


def _normalization(tensor: Table) -> tuple[tuple[float, ...], tuple[float, ...]]:
    for unit in tensor.tables(4):
        options = unit.table(1)
        if unit.number(0, "B") == _NORMALIZATION and options is not None:
            return options.numbers(0, "f"), options.numbers(1, "f")
    return (), ()


def _label_file(tensor: Table) -> str | None:
    return next((file.text(0) for file in tensor.tables(6) if file.number(2, "b") in _LABELS), None)
