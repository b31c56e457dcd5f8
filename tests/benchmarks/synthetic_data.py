"""Synthetic labeled data for four tasks: pictures of 64 × 64 with shapes or kites, and sounds of 64 samples.

Pictures hold one to three shapes (circle, square, triangle) that do not overlap, on a dark noisy ground; a kite is a
triangle with a colored dot on each corner. The same seed gives the same data.
"""

from __future__ import annotations

import json
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64
SHAPES = ("circle", "square", "triangle")
WAVES = ("sine", "square", "triangle", "chirp")
SAMPLES = 64  # of a sound, which is one window of the model
KITE_POINTS = 3
_FINER = 4  # shapes are drawn larger by this factor, then reduced, so that their edges are smooth
_RATE = 16_000
_NOISE = 0.15  # of the waves, whose amplitude is 0.6 to 1


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture and what is in it.

    pixels: [height, width, 3] uint8.
    classes: The class of each object.
    boxes: [n, 4], left, top, right and bottom in pixels.
    mask: [height, width] uint8, 0 for the background, else the class + 1.
    points: [n, 3, 2], the corners of kites in pixels.
    """

    pixels: np.ndarray
    classes: list[int]
    boxes: np.ndarray
    mask: np.ndarray
    points: np.ndarray


def pictures(count: int, seed: int, *, kites: bool = False) -> list[Picture]:
    """Return pictures of shapes, or of one or two kites each."""
    generator = np.random.default_rng(seed)
    return [_picture(generator, kites) for _ in range(count)]


def _picture(generator: np.random.Generator, kites: bool) -> Picture:
    drawn = Image.new("RGB", (SIDE * _FINER, SIDE * _FINER), tuple(generator.integers(10, 60, 3).tolist()))
    mask = Image.new("L", drawn.size)
    classes, boxes, points = [], [], []
    for _ in range(generator.integers(1, 3 if kites else 4)):
        center, radius = generator.uniform(12, SIDE - 12, 2), generator.uniform(9 if kites else 6, 12)
        box = np.concatenate([center - radius, center + radius])
        if any(np.all(box[:2] < other[2:]) and np.all(other[:2] < box[2:]) for other in boxes):
            continue
        kind = 2 if kites else int(generator.integers(3))
        corners = _draw(drawn, mask, generator, kind, center, radius, kites)
        classes.append(0 if kites else kind)
        points.append(corners)
        boxes.append(box if kind < 2 else np.concatenate([corners.min(0), corners.max(0)]))
    small = np.asarray(drawn.resize((SIDE, SIDE), Image.Resampling.BOX), np.float32)
    noisy = np.clip(small + generator.normal(0, 8, small.shape), 0, 255).astype(np.uint8)
    classed = np.asarray(mask.resize((SIDE, SIDE), Image.Resampling.NEAREST))
    return Picture(pixels=noisy, classes=classes, boxes=np.array(boxes), mask=classed, points=np.array(points))


def _draw(
    drawn: Image.Image,
    mask: Image.Image,
    generator: np.random.Generator,
    kind: int,
    center: np.ndarray,
    radius: float,
    dots: bool,
) -> np.ndarray:
    """Draw a shape on the picture and on the mask, and return the corners of a triangle, [3, 2]."""
    color, turn = tuple(generator.integers(110, 255, 3).tolist()), generator.uniform(0, 2 * np.pi)
    angles = turn + np.array([0, 2.2, 4.1])
    corners = center + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    ends = [tuple((center - radius) * _FINER), tuple((center + radius) * _FINER)]
    for image, fill in ((drawn, color), (mask, kind + 1)):
        pen = ImageDraw.Draw(image)
        if kind == 0:
            pen.ellipse(ends, fill=fill)
        elif kind == 1:
            pen.rectangle(ends, fill=fill)
        else:
            pen.polygon([tuple(corner * _FINER) for corner in corners], fill=fill)
    if dots:
        for corner, dot in zip(corners, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), strict=True):
            low, high = (corner - 2) * _FINER, (corner + 2) * _FINER
            ImageDraw.Draw(drawn).ellipse([tuple(low), tuple(high)], fill=dot)
    return corners


def sounds(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sounds [n, samples] in −1…1 and their classes, indices of `WAVES`."""
    generator = np.random.default_rng(seed)
    classes = generator.integers(0, len(WAVES), count)
    time = np.arange(SAMPLES) / SAMPLES
    turns, start = generator.uniform(3, 8, (count, 1)), generator.uniform(0, 1, (count, 1))
    sweep = 1 + time * (classes[:, None] == WAVES.index("chirp"))
    phase = (turns * time * sweep + start) % 1
    sine, square, triangle = np.sin(2 * np.pi * phase), np.sign(phase - 0.5), 4 * np.abs(phase - 0.5) - 1
    shape = np.choose(classes[:, None], [sine, square, triangle, sine])
    loud = generator.uniform(0.6, 1, (count, 1)) * shape + generator.normal(0, _NOISE, shape.shape)
    return np.clip(loud * 0.7, -1, 1).astype(np.float32), classes


def write_pictures(folder: Path, made: Sequence[Picture], labels: str) -> Path:
    """Write pictures with their labels, and return what `--data` takes.

    labels: "boxes" for YOLO's text files, "points" for COCO's key points, "masks", or "" for none.
    """
    place = folder / "images"
    place.mkdir(parents=True)
    for index, one in enumerate(made):
        Image.fromarray(one.pixels).save(place / f"{index:04}.png")
    if labels == "points":
        annotated = folder / "kites.json"
        annotated.write_text(json.dumps(_coco(made)), encoding="utf-8")
        return annotated
    if labels:
        beside = folder / ("masks" if labels == "masks" else "labels")
        beside.mkdir()
        for index, one in enumerate(made):
            if labels == "masks":
                Image.fromarray(one.mask).save(beside / f"{index:04}.png")
            else:
                (beside / f"{index:04}.txt").write_text(_yolo(one), encoding="utf-8")
    return folder if labels else place


def _yolo(picture: Picture) -> str:
    rows = []
    for kind, (left, top, right, bottom) in zip(picture.classes, picture.boxes / SIDE, strict=True):
        rows.append(f"{kind} {(left + right) / 2:.6f} {(top + bottom) / 2:.6f} {right - left:.6f} {bottom - top:.6f}\n")
    return "".join(rows)


def _coco(made: Sequence[Picture]) -> object:
    annotations = []
    for index, picture in enumerate(made):
        for box, points in zip(picture.boxes.tolist(), picture.points, strict=True):
            width, height = box[2] - box[0], box[3] - box[1]
            flat = np.concatenate([points, np.full((KITE_POINTS, 1), 2)], axis=1).reshape(-1).tolist()
            facts = {"id": len(annotations) + 1, "image_id": index, "category_id": 1, "iscrowd": 0}
            where = {"bbox": [*box[:2], width, height], "area": width * height}
            annotations.append({**facts, **where, "keypoints": flat, "num_keypoints": KITE_POINTS})
    images = [{"id": i, "file_name": f"images/{i:04}.png", "width": SIDE, "height": SIDE} for i in range(len(made))]
    names = [f"point {index}" for index in range(KITE_POINTS)]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "kite", "keypoints": names}],
    }


def write_sounds(folder: Path, made: np.ndarray, classes: np.ndarray) -> Path:
    """Write sounds as WAV files in a folder for each class, and return that folder."""
    for index, (samples, kind) in enumerate(zip(made, classes, strict=True)):
        place = folder / WAVES[kind]
        place.mkdir(parents=True, exist_ok=True)
        with wave.open(str(place / f"{index:04}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(_RATE)
            file.writeframes((samples * 32767).astype("<i2").tobytes())
    return folder
