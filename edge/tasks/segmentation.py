"""The view of class maps: shares of the picture, and masks tinted by class."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edge.inference.canvas import Canvas
from edge.tasks import TaskView
from runtimes.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    from PIL.Image import Image

_BACKGROUND = "background"
_SMALLEST_NAMED = 0.01  # share of the picture; smaller masks get no label


class SegmentationView(TaskView[Segmentation, Any]):
    """Shows the share of each class, and tints its pixels; a background stays unchanged."""

    id = "segmentation"

    def describe(self, result: Segmentation) -> str:
        """Format one class per line: share of the picture, name and index."""
        return "\n".join(
            f"  {share:7.2%}  {result.label(index) or 'class'} ({index})" for index, share in result.shares.items()
        )

    def draw(self, image: Image, result: Segmentation) -> Image:
        """Tint each class in its colour and write its name where it is."""
        canvas = Canvas(image)
        classes = result.classes
        if classes.shape != (image.height, image.width):  # the result of an array, not of this picture
            from PIL.Image import Resampling, fromarray

            small = fromarray(classes.astype(np.uint16)).resize(image.size, Resampling.NEAREST)
            classes = np.asarray(small).astype(np.intp)
        skipped = 0 if (result.label(0) or _BACKGROUND).lower() == _BACKGROUND else None
        canvas.mask(classes, skipped)
        for index, share in result.shares.items():
            if index != skipped and share >= _SMALLEST_NAMED:
                rows, columns = np.nonzero(classes == index)
                middle = np.argmin((rows - rows.mean()) ** 2 + (columns - columns.mean()) ** 2)
                place = (float(columns[middle]), float(rows[middle]))
                canvas.tag((*place, *place), f"{result.label(index) or f'class {index}'} {share:.0%}", index)
        return canvas.image
