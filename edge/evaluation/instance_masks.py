"""Compare the outlines of found objects with labeled ones, pixel by pixel as COCO does."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import numpy as np

from runtimes.arrays import Array
from runtimes.artifact.json_fields import Fields
from runtimes.errors import EngineMissingError
from runtimes.registry import install_hint

_MAX_SIDE = 32_768  # pixels, as of a picture

Polygon = tuple[float, ...]  # x and y of each corner, one after the other


@dataclass(frozen=True, kw_only=True)
class RunLengths:
    """A mask as COCO stores those of crowds: the lengths of runs of pixels outside and inside, column by column.

    counts: The lengths, or COCO's text of them.
    """

    height: int
    width: int
    counts: tuple[int, ...] | str


Outline = tuple[Polygon, ...] | RunLengths  # an object may have several parts; empty if it is not labeled


def read_outline(one: Fields, key: str) -> Outline:
    """Read the `segmentation` of an object in COCO JSON."""
    value = one.value(key)
    if isinstance(value, Mapping):
        return _run_lengths(one, key, value)
    if not isinstance(value, list) or not all(isinstance(part, list) and len(part) % 2 == 0 for part in value):
        raise one.reject(key, "is not a list of polygons, nor run lengths")
    polygons = tuple(tuple(number if _is_number(number) else math.nan for number in part) for part in value)
    if not all(math.isfinite(number) and abs(number) <= _MAX_SIDE for part in polygons for number in part):
        raise one.reject(key, "has corners that are not places in a picture")
    return polygons


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _run_lengths(one: Fields, key: str, value: Mapping[str, object]) -> RunLengths:
    size, counts = value.get("size"), value.get("counts")
    if not _are_whole(size) or len(size) != 2 or not all(0 < side <= _MAX_SIDE for side in size):
        raise one.reject(key, "has no 'size' of height and width")
    height, width = size
    if isinstance(counts, str):
        return RunLengths(height=height, width=width, counts=counts)
    if not _are_whole(counts) or sum(counts) != height * width:
        raise one.reject(key, f"has no 'counts' of {width} × {height} pixels")
    return RunLengths(height=height, width=width, counts=tuple(counts))


def _are_whole(value: object) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(isinstance(one, int) and one >= 0 for one in value)


def compare_masks(
    found: Sequence[Polygon], labeled: Sequence[Outline], crowds: Sequence[bool], size: tuple[int, int] | None
) -> tuple[Array, Array]:
    """Return the area of each found mask in pixels, and its IoU with each labeled one, [found, labeled].

    crowds: Whether a labeled mask is a crowd, of which a found one may be a part.
    size: Width and height of the picture; None if they are not known.

    Raises EngineMissingError without faster-coco-eval.
    """
    try:
        from faster_coco_eval.core import mask as masks
    except ImportError:
        what = "comparing masks needs faster-coco-eval, which is not installed"
        raise EngineMissingError(what, install_hint("evaluate")) from None
    runs = next((one for one in labeled if isinstance(one, RunLengths)), None)
    if runs is not None:
        width, height = runs.width, runs.height
    else:
        polygons = [part for one in labeled if not isinstance(one, RunLengths) for part in one]
        width, height = size or _extent([*found, *polygons])

    def encoded(outline: Outline) -> object:
        if not isinstance(outline, RunLengths):
            parts = [list(part) for part in outline if len(part) >= 6]
            return masks.merge(masks.frPyObjects(parts or [[0.0] * 6], height, width))
        counts = outline.counts
        if isinstance(counts, str):
            return {"size": [outline.height, outline.width], "counts": counts.encode()}
        return masks.frPyObjects({"size": [outline.height, outline.width], "counts": list(counts)}, height, width)

    there = [encoded((one,)) for one in found]
    areas = np.asarray(masks.area(there) if there else [], np.float64)
    if not there or not labeled:
        return areas, np.zeros((len(found), len(labeled)))
    ious = masks.iou(there, [encoded(one) for one in labeled], [int(one) for one in crowds])
    return areas, np.asarray(ious, np.float64).reshape(len(found), len(labeled))


def _extent(polygons: Sequence[Polygon]) -> tuple[int, int]:
    """Return width and height of the smallest picture with these polygons."""
    width, height = (max((max(one[axis::2], default=0.0) for one in polygons), default=0.0) for axis in (0, 1))
    return max(1, math.ceil(width)), max(1, math.ceil(height))
