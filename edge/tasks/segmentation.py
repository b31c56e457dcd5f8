"""The view of class maps: shares of the picture, masks tinted by class, and mean IoU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from edge.evaluation.labeled_masks import NOT_LABELED, LabeledMask
from edge.inference.canvas import Canvas
from edge.tasks import Confusion, Metrics, TaskView
from runtimes.arrays import Array
from runtimes.errors import InputError
from runtimes.tasks.segmentation import Segmentation

if TYPE_CHECKING:
    from PIL.Image import Image

_BACKGROUND = "background"
_SMALLEST_NAMED = 0.01  # share of the picture; smaller masks get no label


class SegmentationView(TaskView[Segmentation, LabeledMask]):
    """Shows the share of each class, and tints its pixels; a background stays unchanged."""

    id = "segmentation"

    def describe(self, result: Segmentation) -> str:
        """Format one class per line: share of the picture, name and index."""
        return "\n".join(
            f"  {share:7.2%}  {result.label(index) or 'class'} ({index})" for index, share in result.shares.items()
        )

    def draw(self, image: Image, result: Segmentation) -> Image:
        """Tint each class in its color and write its name where it is."""
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

    def record(self, result: Segmentation, label: LabeledMask) -> Array:
        """Return the pairs of correct and found class with their number of pixels, [pairs, 3].

        Raises InputError if the mask cannot be read, or has another size than the picture.
        """
        correct = label.classes()
        if correct.shape != result.classes.shape:
            sizes = " and ".join(f"{shape[1]} × {shape[0]}" for shape in (correct.shape, result.classes.shape))
            raise InputError(f"{label.path} and its picture have other sizes: {sizes}", "a mask has its picture's size")
        is_labeled = correct != NOT_LABELED
        pairs = np.stack([correct[is_labeled], result.classes[is_labeled]])
        found, pixels = np.unique(pairs, axis=1, return_counts=True)
        return np.column_stack([found.T, pixels]).astype(np.float64)

    def metrics(self, records: Sequence[Array]) -> Metrics:
        """Compute "miou", the mean IoU of the classes that are labeled, and "pixel_accuracy"."""
        rows = np.concatenate(records) if records else np.empty((0, 3))
        if not len(rows):
            return Metrics(count=len(records))
        pairs, places = np.unique(rows[:, :2], axis=0, return_inverse=True)
        pixels = np.bincount(places.reshape(-1), rows[:, 2])
        correct, found = pairs.astype(np.int64).T
        same = correct == found
        classes = {}
        for one in np.unique(correct).tolist():
            either = pixels[(correct == one) | (found == one)].sum()
            classes[one] = float(pixels[same & (correct == one)].sum() / either)
        values = {
            "miou": float(np.mean(list(classes.values()))),
            "pixel_accuracy": float(pixels[same].sum() / pixels.sum()),
        }
        order = np.argsort(-pixels, kind="stable")
        wrong = [Confusion(int(correct[i]), int(found[i]), int(pixels[i])) for i in order if not same[i]]
        return Metrics(count=len(records), values=values, classes=classes, confusions=tuple(wrong))
