"""What a Hugging Face folder says beside its weights: the labels of its classes, and how a picture becomes its input.

Read as JSON; neither `transformers` nor any code of the folder is needed. Image processors of which only some are
known here are told apart by name, as the same keys mean different things to them; what is not known is not guessed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtimes.artifact import Preprocess
from runtimes.errors import InputError
from runtimes.fields import Fields

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
_LARGEST = 2**22
_MOST_LABELS = 100_000
_CLASSIFIER = "ForImageClassification"
# Processors that resize and crop as their `size` says: straight to height and width, or by the shortest edge.
_PLAIN = frozenset(("ViT", "DeiT", "Beit", "Siglip", "CLIP", "Bit", "MobileNetV1", "MobileNetV2", "MobileViT"))
_SQUARE = frozenset(("ViT", "DeiT", "Beit", "Siglip"))  # what a `size` of one number means to them: both sides
_CONVNEXT = "ConvNext"  # up to 384 pixels it crops `crop_pct` of a larger picture, from there on it stretches
_STRETCHED_FROM = 384
_METHODS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_SAY = "say it with --preprocess, or --mean and --scale"


@dataclass(frozen=True)
class HfFolder:
    """`labels` in the order of the classes, `preprocess` for NCHW, `kind` of the output; None where not said.

    `notes` say where these come from, or why they are not known.
    """

    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None
    kind: str | None = None
    notes: tuple[str, ...] = ()


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a few MiB at most; InputError for anything else."""
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"{path} is larger than any configuration", "check where the folder comes from")
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", "check that the folder is complete") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object", "check that the folder is complete")
    return found


def read_folder(folder: Path) -> HfFolder:
    """What the folder says of labels and pictures; InputError for files that are broken."""
    config = read_json(folder / CONFIG)
    preprocess, notes = _prepared(folder)
    if not str((config.get("architectures") or [""])[0]).endswith(_CLASSIFIER):
        return HfFolder(preprocess=preprocess, notes=notes)
    labels = _labels(config, folder / CONFIG)
    named = (f"{len(labels)} labels come from {CONFIG}",) if labels else ()
    return HfFolder(labels, preprocess, "logit", (*named, *notes))


def picture_size(folder: Path) -> tuple[int, int] | None:
    """Height and width that the folder's processor gives every picture; None where it is not known."""
    preprocess, _ = _prepared(folder)
    return preprocess.crop if preprocess else None


def _prepared(folder: Path) -> tuple[Preprocess | None, tuple[str, ...]]:
    path = folder / PROCESSOR
    if not path.is_file():
        return None, ()
    found = read_json(path)
    name = str(found.get("image_processor_type") or found.get("feature_extractor_type") or "of no type")[:80]
    try:
        preprocess = _preprocess(_family(name), Fields(found, str(path)))
    except _Unknown as reason:
        return None, (f"{PROCESSOR} ({name}) {reason}, so it is not used: {_SAY}",)
    except InputError as error:
        raise InputError(error.message, "mend the file, or take it away and say it with --preprocess") from None
    return preprocess, (f"how pictures go in comes from {PROCESSOR} ({name})",)


class _Unknown(Exception):  # noqa: N818 - what it is; it becomes a note
    """The processor does something that is not known here, or that a manifest has no words for."""


def _family(name: str) -> str:
    """ViT of ViTImageProcessor, ViTImageProcessorFast and ViTFeatureExtractor."""
    for ending in ("Fast", "Pil"):
        name = name.removesuffix(ending)
    return name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")


def _preprocess(family: str, fields: Fields) -> Preprocess:
    if family not in _PLAIN and family != _CONVNEXT:
        raise _Unknown("is no image processor that is known here")
    if not _flag(fields, "do_resize", True):
        raise _Unknown("resizes nothing")
    method = _METHODS.get(fields.whole("resample") if fields.has("resample") else -1)
    if method is None:
        raise _Unknown("resizes with another filter than nearest, bilinear or bicubic")
    resize, size, crop = (_convnext if family == _CONVNEXT else _plain)(family, fields)
    mean, scale = _mean_and_scale(family, fields)
    color = "BGR" if family == "MobileViT" and _flag(fields, "do_flip_channel_order", True) else "RGB"
    if min(crop) < 1 or len(mean) != 3 or len(scale) != 3:
        raise _Unknown("makes no pictures of three channels")
    return Preprocess(resize, size, crop, method, "NCHW", color, mean, scale)


def _plain(family: str, fields: Fields) -> tuple[str, int, tuple[int, int]]:
    """How, to what shorter side, and to what height and width."""
    sizes = _sizes(fields, "size", square=family in _SQUARE)
    crops = _flag(fields, "do_center_crop", fields.has("crop_size"))
    crop = _pair(_sizes(fields, "crop_size", square=True)) if crops else None
    if set(sizes) == {"shortest_edge"} and crop is not None:
        if sizes["shortest_edge"] < max(crop):
            raise _Unknown("crops more than it has")
        return "shorter_side", sizes["shortest_edge"], crop
    whole = _pair(sizes)
    if whole is None or crop not in (None, whole):
        raise _Unknown("resizes and crops in a way that a manifest has no words for")
    return "stretch", max(whole), whole


def _convnext(_family: str, fields: Fields) -> tuple[str, int, tuple[int, int]]:
    sizes = _sizes(fields, "size", square=False)
    if set(sizes) != {"shortest_edge"}:
        raise _Unknown("gives its size in another way than by the shortest edge")
    side = sizes["shortest_edge"]
    if side >= _STRETCHED_FROM:
        return "stretch", side, (side, side)
    share = fields.number("crop_pct")
    if not 0.1 <= share <= 1:
        raise fields.reject("crop_pct", f"is {share}, not a share of a picture")
    return "shorter_side", int(side / share), (side, side)


def _sizes(fields: Fields, key: str, square: bool) -> Mapping[str, int]:
    """Sizes by name; one number, as older files have it, by the name that the processor gives it."""
    if not isinstance(fields.value(key), dict):
        side = fields.whole(key)
        return {"height": side, "width": side} if square else {"shortest_edge": side}
    inner = fields.child(key)
    return {name: inner.whole(name) for name in fields.mapping(key)}


def _pair(sizes: Mapping[str, int]) -> tuple[int, int] | None:
    return (sizes["height"], sizes["width"]) if set(sizes) == {"height", "width"} else None


def _mean_and_scale(family: str, fields: Fields) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(pixel × factor − mean) ÷ deviation as (pixel − mean ÷ factor) × (factor ÷ deviation)."""
    factor = 1.0
    if _flag(fields, "do_rescale", True):
        factor = fields.number("rescale_factor") if fields.has("rescale_factor") else 1 / 255
    if not _flag(fields, "do_normalize", family != "MobileViT"):
        return (0.0,) * 3, (factor,) * 3
    means, deviations = fields.numbers("image_mean"), fields.numbers("image_std")
    if factor <= 0 or not all(value > 0 for value in deviations):
        raise fields.reject("image_std", f"is {list(deviations)}, and one divides by it")
    return tuple(mean / factor for mean in means), tuple(factor / deviation for deviation in deviations)


def _flag(fields: Fields, key: str, default: bool) -> bool:
    value = fields.value(key) if fields.has(key) else default
    if not isinstance(value, bool):
        raise fields.reject(key, f"is {value!r}, not true or false")
    return value


def _labels(config: Mapping[str, Any], path: Path) -> tuple[str, ...] | None:
    """The names in `id2label`; None where there are none but the numbers that the library puts in their place."""
    known = config.get("id2label")
    if not isinstance(known, dict) or not known or len(known) > _MOST_LABELS:
        return None
    names = [known.get(str(index)) for index in range(len(known))]
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise InputError(f"{path}: 'id2label' is not one line of text for each class, numbered from 0", "mend the file")
    texts = tuple(map(str, names))
    return None if texts == tuple(f"LABEL_{index}" for index in range(len(texts))) else texts
