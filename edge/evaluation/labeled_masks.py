"""Read labeled class maps: a mask for each picture, with the index of a class in each pixel.

The mask of `images/NAME.jpg` is `masks/NAME.png`, that of `JPEGImages/NAME.jpg` is `SegmentationClass/NAME.png`, and
that of a picture elsewhere `NAME_mask.png` next to it. Masks are gray or have a palette; 255 stands for pixels that are
not labeled. `classes.txt` in the folder may hold the class names; without it, a pixel is the model's own index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge.console.text import quantity
from edge.evaluation.labeled_inputs import LabeledInputs, Names, names_of_classes
from edge.inference.images import find_pictures, read_indexed_pixels
from runtimes.arrays import Array
from runtimes.artifact.labels import read_labels
from runtimes.errors import InputError

NOT_LABELED = 255
_FOLDERS = {"images": "masks", "JPEGImages": "SegmentationClass"}
_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")  # lossless: a JPEG would mix classes at their borders
_END = "_mask"
_HINT = "put masks/NAME.png for images/NAME.jpg, or NAME_mask.png next to NAME.jpg"


@dataclass(frozen=True)
class LabeledMask:
    """The mask of a picture.

    path: Its file.
    indices: Value of a pixel → the model's class; negative for a class that the model does not have.
    """

    path: Path
    indices: Mapping[int, int] = field(default_factory=dict)

    def classes(self) -> Array:
        """Return the model's class of each pixel, and `NOT_LABELED`, as int64 [height, width].

        Raises InputError if the file is not such a mask, or has values that are not classes.
        """
        values = read_indexed_pixels(self.path).astype(np.int64)
        found = values.copy()
        for value in np.unique(values).tolist():
            if value == NOT_LABELED:
                continue
            if value not in self.indices:
                what = f"{self.path} has pixels of {value}; the classes are 0 to {max(self.indices)}"
                raise InputError(what, f"write the index of a class in each pixel, and {NOT_LABELED} for no label")
            found[values == value] = self.indices[value]
        return found


def read_masks(data: Path, names: Names) -> LabeledInputs:
    """Read pictures with their masks for a model whose classes have these names.

    Raises InputError if no picture has a mask, and if `classes.txt` has none of the model's classes.
    """
    indices, notes = {one: one for one in names or range(NOT_LABELED)}, tuple[str, ...]()
    if (data / "classes.txt").is_file():
        indices, notes = names_of_classes(read_labels(data / "classes.txt"), names)
    pictures = [one for one in find_pictures(data) if not _is_mask(one)]
    found = [(one, mask) for one in pictures if (mask := _mask_of(one)) is not None]
    if not found:
        raise InputError(f"no picture in {data} has a mask", _HINT)
    missing = len(pictures) - len(found)
    skipped = (f"left out: {quantity(missing, 'picture')} without a mask",) if missing else ()
    return LabeledInputs(tuple((one, LabeledMask(mask, indices)) for one, mask in found), (*notes, *skipped))


def _is_mask(path: Path) -> bool:
    return path.stem.endswith(_END) or any(part in _FOLDERS.values() for part in path.parent.parts)


def _mask_of(picture: Path) -> Path | None:
    parts = list(picture.parent.parts)
    place = next((place for place in reversed(range(len(parts))) if parts[place] in _FOLDERS), None)
    beside = [picture.with_name(picture.stem + _END + suffix) for suffix in _SUFFIXES]
    if place is not None:
        parts[place] = _FOLDERS[parts[place]]
        beside += [Path(*parts, picture.stem + suffix) for suffix in _SUFFIXES]
    return next((one for one in beside if one.is_file()), None)
