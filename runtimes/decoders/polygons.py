"""The outlines of masks, as polygons."""

from __future__ import annotations

import numpy as np

from runtimes.arrays import Array

# The direction after a corner where two parts touch: right turns first, which keeps the parts apart.
_TURNS = {(1, 0): ((0, 1), (1, 0), (0, -1)), (0, 1): ((-1, 0), (0, 1), (1, 0))}
_TURNS.update({(-1, 0): ((0, -1), (-1, 0), (0, 1)), (0, -1): ((1, 0), (0, -1), (-1, 0))})


def outline(mask: Array) -> Array:
    """Return the outline [n, 2] (x, y) of the largest part of a mask [height, width], along the edges of its pixels.

    Corners are clockwise as seen in a picture, without those on a straight line. Holes are left out; a mask without any
    pixel gives [0, 2].
    """
    loops = _loops(_edges(mask))
    if not loops:
        return np.empty((0, 2))
    return max((_corners(loop) for loop in loops), key=area)


def area(polygon: Array) -> float:
    """Return the area of a polygon, by the shoelace formula; negative for corners that are counter-clockwise."""
    if len(polygon) < 3:
        return 0.0
    x, y = polygon[:, 0], polygon[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def contains(polygon: Array, points: Array) -> Array:
    """Return whether each point [n, 2] is inside the polygon, by the even-odd rule."""
    inside = np.zeros(len(points), bool)
    x, y = points[:, 0], points[:, 1]
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0)):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < x0 + (y - y0) * (x1 - x0) / (y1 - y0))
    return inside


def _edges(mask: Array) -> dict[tuple[int, int], list[tuple[int, int]]]:
    """Return corner → the next corners, for edges between a pixel of the mask and none, with the mask on the right."""
    full = np.pad(mask.astype(bool), 1)
    inner = full[1:-1, 1:-1]
    found: dict[tuple[int, int], list[tuple[int, int]]] = {}
    sides = (
        (inner & ~full[:-2, 1:-1], (0, 0), (1, 0)),  # above: to the right
        (inner & ~full[1:-1, 2:], (1, 0), (1, 1)),  # right: down
        (inner & ~full[2:, 1:-1], (1, 1), (0, 1)),  # below: to the left
        (inner & ~full[1:-1, :-2], (0, 1), (0, 0)),  # left: up
    )
    for places, start, end in sides:
        for y, x in np.argwhere(places).tolist():
            found.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    return found


def _loops(edges: dict[tuple[int, int], list[tuple[int, int]]]) -> list[list[tuple[int, int]]]:
    """Chain the edges into closed loops; uses them up."""
    loops = []
    while edges:
        start = next(iter(edges))
        loop, here, direction = [start], start, (1, 0)
        while here in edges:
            ways = edges[here]
            wanted = ((here[0] + dx, here[1] + dy) for dx, dy in _TURNS[direction])
            after = next((one for one in wanted if one in ways), ways[0])
            ways.remove(after)
            if not ways:
                del edges[here]
            direction = (after[0] - here[0], after[1] - here[1])
            here = after
            loop.append(here)
        loops.append(loop[:-1])
    return loops


def _corners(loop: list[tuple[int, int]]) -> Array:
    """Drop the points on straight lines."""
    points = np.asarray(loop, np.float64)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    corners: Array = points[(before[:, 0] * after[:, 1] - before[:, 1] * after[:, 0]) != 0]
    return corners
