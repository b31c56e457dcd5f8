"""Read labeled objects in pictures: boxes, outlines and key points.

    COCO JSON    a .json with images, annotations and categories; the pictures are next to it, or in a folder next to it
    YOLO txt     a text file for each picture, next to it or in `labels/` for `images/`: class, then center x, center y,
                 width and height as shares of the picture, or x and y of the corners of an outline; key points follow
                 the box as x and y, or as x, y and visibility; `classes.txt` may hold the class names
    VOC XML      an XML file for each picture, next to it or in `Annotations/`

Boxes are left, top, right and bottom in pixels of the upright picture.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge.evaluation.instance_masks import Outline, read_outline
from edge.evaluation.labeled_inputs import LabeledInputs, Names, names_of_classes
from edge.inference.images import find_files, find_pictures, picture_size
from runtimes.artifact.json_fields import Fields
from runtimes.artifact.labels import read_labels
from runtimes.decoders.polygons import area
from runtimes.errors import InputError

_MAX_JSON_BYTES = 1 << 30  # COCO's training set has 450 MB
_MAX_TEXT_BYTES = 1 << 22  # of the labels of one picture
_THREE_WAYS = "pass a COCO .json, or a folder with a YOLO .txt or a VOC .xml for each picture"
_PERSON = 0.53  # the share of its box that a person covers, where the labels have no area; as in ultralytics
_YOLO_HINT = "write class, center x, center y, width and height, then key points; or class, and x and y of corners"
_FORMAT_HINT = "see docs/guides/evaluate.md for the formats"


@dataclass(frozen=True, kw_only=True)
class LabeledObject:
    """An object in a picture.

    index: Its class in the model; negative for a class that the model does not have.
    box: Left, top, right and bottom.
    area: Its area in pixels, by which COCO tells small, medium and large objects.
    is_crowd: Whether it counts neither as missed nor against what is found in it.
    points: The key points as x, y and visibility (0: not labeled), one after the other.
    outline: Its mask; empty if it is not labeled.
    """

    index: int
    box: tuple[float, float, float, float]
    area: float
    is_crowd: bool = False
    points: tuple[float, ...] = ()
    outline: Outline = ()


@dataclass(frozen=True, kw_only=True)
class LabeledObjects:
    """The objects in a picture.

    classes: The classes that the data set labels: what is found of others is not judged.
    size: Width and height of the picture; None if the labels do not hold them.
    """

    objects: tuple[LabeledObject, ...]
    classes: frozenset[int]
    size: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A picture, and its objects with the place of their class in the data set's list."""

    path: Path
    objects: tuple[LabeledObject, ...]
    size: tuple[int, int] | None = None


def read_objects(data: Path, names: Names, has_poses: bool = False) -> LabeledInputs:
    """Read labeled objects for a model whose classes have these names.

    has_poses: Whether key points, not corners of an outline, follow the class in YOLO's files.

    Raises InputError for data that cannot be read, and if none of its classes is one of the model's.
    """
    pictures, classes = _read(data, has_poses)
    if not pictures:
        raise InputError(f"{data} contains no pictures", _THREE_WAYS)
    indices, notes = (dict[int, int](), ()) if classes is None else names_of_classes(classes, names)
    if classes is None:  # YOLO numbers the model's own classes
        used = sorted({one.index for picture in pictures for one in picture.objects})
        wrong = next((one for one in used if names and one not in names), None)
        if wrong is not None:
            raise InputError(f"{data} has the class {wrong}; the model has {len(names)} classes", "number them from 0")
        indices = {one: one for one in (names or used)}
    known = frozenset(indices.values())
    inputs = (
        (
            picture.path,
            LabeledObjects(
                objects=tuple(replace(one, index=indices[one.index]) for one in picture.objects),
                classes=known,
                size=picture.size,
            ),
        )
        for picture in pictures
    )
    return LabeledInputs(tuple(inputs), notes)


def read_poses(data: Path, names: Names) -> LabeledInputs:
    """Read labeled key points for a model whose classes have these names; without names, it knows a single one.

    Raises InputError for data without key points.
    """
    found = read_objects(data, names, has_poses=True)
    if not any(one.points for _, label in found.inputs for one in label.objects):
        raise InputError(f"{data} has no key points", "pass a COCO .json with 'keypoints', or YOLO .txt with points")
    if names:
        return found
    return LabeledInputs(tuple((source, _of_one_class(label)) for source, label in found.inputs))


def _of_one_class(label: LabeledObjects) -> LabeledObjects:
    objects = tuple(replace(one, index=0) for one in label.objects)
    return replace(label, objects=objects, classes=frozenset({0}))


def _read(data: Path, has_poses: bool) -> tuple[list[_Picture], Sequence[str] | None]:
    """Return the pictures and the class names; None if numbers are the model's own."""
    if data.suffix.lower() == ".json":
        return _coco(data)
    if data.is_dir():
        documents = sorted(data.glob("*.json"))
        if len(documents) == 1:
            return _coco(documents[0])
        if documents and not any(path.suffix in (".txt", ".xml") for path in find_files(data)):
            what = f"{data} has {len(documents)} .json files ({documents[0].name}, {documents[1].name}, …)"
            raise InputError(what, "pass the one with the labels instead of the folder")
        pictures = find_pictures(data)
        if any(_beside(one, "Annotations", "JPEGImages", ".xml").is_file() for one in pictures):
            return _voc(pictures)
        if any(_beside(one, "labels", "images", ".txt").is_file() for one in pictures):
            return _yolo(data, pictures, has_poses)
    raise InputError(f"{data} holds no labeled objects", _THREE_WAYS)


# ---- COCO JSON


def _coco(document: Path) -> tuple[list[_Picture], Sequence[str]]:
    if document.stat().st_size > _MAX_JSON_BYTES:
        raise InputError(f"{document} is larger than {_MAX_JSON_BYTES >> 20} MiB", "evaluate a part of it")
    try:
        fields = Fields(json.loads(document.read_bytes()), str(document), hint=_FORMAT_HINT)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{document} cannot be read as JSON: {error}", _FORMAT_HINT) from None
    unique = _Unique()
    categories = sorted(
        (one.integer("id"), one.text("name"))
        for one in fields.children("categories")
        if unique.check(one, "category", "id")
    )
    place = {number: position for position, (number, _) in enumerate(categories)}
    objects: dict[int, list[LabeledObject]] = {}
    for one in fields.children("annotations"):
        unique.check(one, "annotation", "id")
        if one.integer("category_id") not in place:
            raise one.reject("category_id", "is not the id of a category")
        objects.setdefault(one.integer("image_id"), []).append(_coco_object(one, place[one.integer("category_id")]))
    images, sizes = dict[int, str](), dict[int, tuple[int, int]]()
    for one in fields.children("images"):
        unique.check(one, "image", "id", "file_name")
        images[one.integer("id")] = one.text("file_name")
        if one.has("width") and one.has("height"):
            sizes[one.integer("id")] = one.integer("width"), one.integer("height")
    lost = next((number for number in objects if number not in images), None)
    if lost is not None:
        raise InputError(f"{document}: an annotation is of image {lost}, which is not in 'images'", _FORMAT_HINT)
    if not images:
        raise InputError(f"{document} contains no images", _FORMAT_HINT)
    folder = _folder_of(document, list(images.values()))
    pictures = [
        _Picture(path=folder / name, objects=tuple(objects.get(number, ())), size=sizes.get(number))
        for number, name in sorted(images.items())
    ]
    return pictures, [name for _, name in categories]


class _Unique:
    """Finds values that two objects of a COCO file share, such as an image that is listed twice."""

    def __init__(self) -> None:
        self._known = set[tuple[str, str, str]]()

    def check(self, one: Fields, kind: str, *keys: str) -> bool:
        """Return True. Raises InputError for a key that an object of this kind before it has with the same value."""
        for key in filter(one.has, keys):
            value = (kind, key, str(one.value(key)))
            if value in self._known:
                raise one.reject(key, f"is that of another {kind} before it")
            self._known.add(value)
        return True


def _coco_object(one: Fields, index: int) -> LabeledObject:
    box = one.numbers("bbox")
    if len(box) != 4 or not all(map(math.isfinite, box)) or min(box[2:]) < 0:
        raise one.reject("bbox", "is not left, top, width and height")
    left, top, width, height = box
    area = one.number("area") if one.has("area") else width * height
    if not 0 <= area < math.inf:
        raise one.reject("area", "is no area")
    points = one.numbers("keypoints") if one.has("keypoints") else ()
    if len(points) % 3 or not all(map(math.isfinite, points)):
        raise one.reject("keypoints", "is not x, y and visibility of each key point")
    is_crowd = one.has("iscrowd") and bool(one.integer("iscrowd"))
    outline = read_outline(one, "segmentation") if one.has("segmentation") and one.value("segmentation") else ()
    return LabeledObject(
        index=index,
        box=(left, top, left + width, top + height),
        area=area,
        is_crowd=is_crowd,
        points=points,
        outline=outline,
    )


def _folder_of(document: Path, names: Sequence[str]) -> Path:
    """Find the pictures: next to the JSON, or in `val2017/` for `annotations/instances_val2017.json`, as in COCO."""
    here, above = document.parent, document.resolve().parent.parent
    part = document.stem.rpartition("_")[2]
    places = [here, here / "images", here / part, above, above / "images", above / part, above / "images" / part]
    first = names[0]
    found = next((place for place in places if (place / first).is_file()), None)
    if found is None:
        raise InputError(f"{document}: its picture {first} is not in {here} or {above}", "put the JSON next to them")
    outside = next((name for name in names if Path(name).is_absolute() or ".." in Path(name).parts), None)
    if outside is not None:
        raise InputError(f"{document} names {outside}, outside of its folder", "name pictures relative to their folder")
    return found


# ---- YOLO txt


def _yolo(data: Path, pictures: Sequence[Path], has_poses: bool) -> tuple[list[_Picture], Sequence[str] | None]:
    names = next((one for one in (data / "classes.txt", data / "labels" / "classes.txt") if one.is_file()), None)
    classes = read_labels(names) if names is not None else None
    found = [_yolo_picture(one, _beside(one, "labels", "images", ".txt"), has_poses) for one in pictures]
    most = max((one.index for picture in found for one in picture.objects), default=-1)
    if classes is not None and most >= len(classes):
        raise InputError(f"a label is of class {most}; {names} has {len(classes)} names", "number classes from 0")
    return found, classes


def _yolo_picture(picture: Path, document: Path, has_poses: bool) -> _Picture:
    text = _text(document) if document.is_file() else ""  # without one, there are no objects in it
    rows = [(number, line.split()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not rows:
        return _Picture(path=picture, objects=())
    size = picture_size(picture)
    width, height = size or (1, 1)  # what cannot be read is reported when it is its turn
    found = []
    for number, words in rows:
        try:
            shares = [float(word) for word in words[1:]]
            found.append(_yolo_object(int(words[0]), shares, (width, height), has_poses))
        except ValueError:
            what = f"line {number} of {document} is not a class and shares of the picture, 0 to 1"
            hint = (
                "write class, center x, center y, width and height, then key points; or class, and x and y of corners"
            )
            raise InputError(what, hint) from None
    return _Picture(path=picture, objects=tuple(found), size=size)


def _yolo_object(index: int, shares: Sequence[float], size: tuple[int, int], has_poses: bool) -> LabeledObject:
    """Return the object of a line. Raises ValueError for a line of another form."""
    is_outline = len(shares) > 4 and len(shares) % 2 == 0 and not has_poses and max(shares) <= 1
    points = [] if is_outline else _yolo_points(shares[4:])
    places = shares if is_outline else (*shares[:4], *(number for x, y, _ in points for number in (x, y)))
    if index < 0 or len(shares) < 4 or not all(0 <= share <= 1 for share in places):
        raise ValueError
    scaled = [share * size[place % 2] for place, share in enumerate(shares)]
    if is_outline:
        box = min(scaled[::2]), min(scaled[1::2]), max(scaled[::2]), max(scaled[1::2])
        return LabeledObject(
            index=index, box=box, area=abs(area(np.reshape(scaled, (-1, 2)))), outline=(tuple(scaled),)
        )
    x, y, w, h = scaled[:4]
    pixels = tuple(number for x, y, seen in points for number in (x * size[0], y * size[1], seen))
    covered = _PERSON if has_poses else 1.0
    return LabeledObject(
        index=index, box=(x - w / 2, y - h / 2, x + w / 2, y + h / 2), area=w * h * covered, points=pixels
    )


def _yolo_points(numbers: Sequence[float]) -> list[tuple[float, float, float]]:
    """Return the key points that follow a box; without visibility, those at 0, 0 are not labeled."""
    if len(numbers) % 3 == 0 and all(one in (0, 1, 2) for one in numbers[2::3]):
        return list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
    return [(x, y, 2.0 if x or y else 0.0) for x, y in zip(numbers[::2], numbers[1::2], strict=True)]


# ---- VOC XML


def _voc(pictures: Sequence[Path]) -> tuple[list[_Picture], Sequence[str]]:
    read = [(one, _voc_objects(_beside(one, "Annotations", "JPEGImages", ".xml"))) for one in pictures]
    classes = sorted({name for _, objects in read for name, _ in objects})
    place = {name: position for position, name in enumerate(classes)}
    found = [
        _Picture(
            path=one,
            objects=tuple(
                LabeledObject(index=place[name], box=o.box, area=o.area, is_crowd=o.is_crowd) for name, o in objects
            ),
        )
        for one, objects in read
    ]
    return found, classes


def _voc_objects(document: Path) -> list[tuple[str, LabeledObject]]:
    """Return name and box of each object. VOC counts pixels from 1, and a box includes its last pixel."""
    from xml.etree.ElementTree import ParseError, fromstring

    if not document.is_file():
        raise InputError(
            f"{document} does not exist", "VOC has one XML for each picture, without objects if it has none"
        )
    try:
        text = _text(document)
        if "<!ENTITY" in text:  # which could expand to any size
            raise InputError(f"{document} defines XML entities, which VOC does not use", "remove them")
        found = []
        for one in fromstring(text).iter("object"):  # noqa: S314 # bounded, and without entities
            corners = [float(one.findtext(f"bndbox/{key}") or "") for key in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = corners[0] - 1, corners[1] - 1, corners[2], corners[3]
            if not (left < right < math.inf and top < bottom < math.inf):
                raise ValueError("a bndbox is empty")
            area = (right - left) * (bottom - top)
            is_difficult = (one.findtext("difficult") or "0").strip() == "1"
            name = (one.findtext("name") or "").strip()
            if not name:
                raise ValueError("an object has no name")
            found.append(
                (name, LabeledObject(index=0, box=(left, top, right, bottom), area=area, is_crowd=is_difficult))
            )
    except (ParseError, ValueError) as error:
        raise InputError(f"{document} is not a VOC annotation: {error}", _FORMAT_HINT) from None
    return found


def _beside(picture: Path, folder: str, pictures: str, suffix: str) -> Path:
    """Return the label file of a picture: in `folder` if the picture is in one called `pictures`, else next to it."""
    parts = list(picture.parent.parts)
    if pictures in parts:
        parts[len(parts) - 1 - parts[::-1].index(pictures)] = folder
    return Path(*parts, picture.stem + suffix)


def _text(document: Path) -> str:
    if document.stat().st_size > _MAX_TEXT_BYTES:
        raise InputError(f"{document} is larger than the labels of any picture", _FORMAT_HINT)
    try:
        return document.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{document} is not text in UTF-8", _FORMAT_HINT) from None
