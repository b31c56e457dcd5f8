"""Read the labels and the preprocessing of a Hugging Face folder from its JSON files.

Neither `transformers` nor any code of the folder is needed. Image processors are distinguished by name, because the
same keys mean different things to them. Nothing is guessed about unknown ones.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from converters.sources.source import SourceHints
from runtimes.artifact import Preprocess
from runtimes.artifact.json_fields import Fields, JsonObject, JsonValue
from runtimes.errors import InputError

CONFIG, PROCESSOR = "config.json", "preprocessor_config.json"
TOKENIZER = "tokenizer.json"
_MAX_CONFIG_BYTES = 2**22
_MAX_LABELS = 100_000
_CLASSIFIER = "ForImageClassification"
# Processors that resize and crop to their `size`: directly to height and width, or by the shortest edge.
_PLAIN = frozenset(("ViT", "DeiT", "Beit", "Siglip", "CLIP", "Bit", "MobileNetV1", "MobileNetV2", "MobileViT"))
_SQUARE = frozenset(("ViT", "DeiT", "Beit", "Siglip"))  # their `size` of one number means both sides
_CONVNEXT = "ConvNext"  # up to 384 pixels it crops `crop_pct` of a larger picture, from there on it stretches
_STRETCHED_FROM = 384
_METHODS = {0: "nearest", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_SAY = "specify the preprocessing with --preprocess, or --mean and --scale"


def read_json(path: Path) -> JsonObject:
    """Return the object in a JSON file of a few MiB at most. Raises InputError for anything else."""
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            raise InputError(
                f"{path} is larger than {_MAX_CONFIG_BYTES >> 20} MiB", "give a folder that `save_pretrained` wrote"
            )
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read: {error}", "give a folder that `save_pretrained` wrote") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} holds no JSON object", "give a folder that `save_pretrained` wrote")
    return found


def architecture(config: Mapping[str, JsonValue]) -> str:
    """Return the first model class in the configuration; empty if it names none."""
    names = config.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def read_folder(folder: Path) -> SourceHints:
    """Return the labels and the preprocessing of the folder. Raises InputError for broken files."""
    config = read_json(folder / CONFIG)
    preprocess, notes = _read_preprocess(folder)
    if not architecture(config).endswith(_CLASSIFIER):
        return SourceHints(preprocess=preprocess, notes=notes)
    labels = class_labels(config, folder / CONFIG)
    named = (f"{len(labels)} labels come from {CONFIG}",) if labels else ()
    return SourceHints(labels=labels, preprocess=preprocess, kind="logit", notes=(*named, *notes))


def picture_size(folder: Path) -> tuple[int, int] | None:
    """Return the height and width to which the folder's processor brings pictures; None if unknown."""
    preprocess, _ = _read_preprocess(folder)
    return preprocess.crop if preprocess else None


def _read_preprocess(folder: Path) -> tuple[Preprocess | None, tuple[str, ...]]:
    path = folder / PROCESSOR
    if not path.is_file():
        return None, ()
    found = read_json(path)
    name = str(found.get("image_processor_type") or found.get("feature_extractor_type") or "of no type")[:80]
    try:
        preprocess = _preprocess(_family(name), Fields(found, str(path)))
    except _UnknownError as reason:
        return None, (f"{PROCESSOR} ({name}) {reason}, so it is not used: {_SAY}",)
    except InputError as error:
        raise InputError(error.message, "fix the file, or remove it and pass --preprocess") from None
    return preprocess, (f"the preprocessing comes from {PROCESSOR} ({name})",)


class _UnknownError(Exception):
    """The processor does something that edge does not know, or that a manifest cannot describe."""


def _family(name: str) -> str:
    """Return the family in a class name: ViT for ViTImageProcessor, ViTImageProcessorFast and ViTFeatureExtractor."""
    for ending in ("Fast", "Pil"):
        name = name.removesuffix(ending)
    return name.removesuffix("ImageProcessor").removesuffix("FeatureExtractor")


def _preprocess(family: str, fields: Fields) -> Preprocess:
    if family not in _PLAIN and family != _CONVNEXT:
        raise _UnknownError("is an image processor that edge does not know")
    if not _flag(fields, "do_resize", True):
        raise _UnknownError("does not resize")
    method = _METHODS.get(fields.integer("resample") if fields.has("resample") else -1)
    if method is None:
        raise _UnknownError("resizes with a filter other than nearest, bilinear or bicubic")
    resize, size, crop = (_convnext if family == _CONVNEXT else _plain)(family, fields)
    mean, scale = _mean_and_scale(family, fields)
    color = "BGR" if family == "MobileViT" and _flag(fields, "do_flip_channel_order", True) else "RGB"
    if min(crop) < 1 or len(mean) != 3 or len(scale) != 3:
        raise _UnknownError("does not produce pictures of three channels")
    return Preprocess(
        resize=resize, size=size, crop=crop, method=method, layout="NCHW", color=color, mean=mean, scale=scale
    )


def _plain(family: str, fields: Fields) -> tuple[str, int, tuple[int, int]]:
    """Return how to resize, the shorter side, and the height and width of the crop."""
    sizes = _sizes(fields, "size", square=family in _SQUARE)
    crops = _flag(fields, "do_center_crop", fields.has("crop_size"))
    crop = _pair(_sizes(fields, "crop_size", square=True)) if crops else None
    if set(sizes) == {"shortest_edge"} and crop is not None:
        if sizes["shortest_edge"] < max(crop):
            raise _UnknownError("crops more than the resized picture has")
        return "shorter_side", sizes["shortest_edge"], crop
    whole = _pair(sizes)
    if whole is None or crop not in (None, whole):
        raise _UnknownError("resizes and crops in a way that a manifest cannot describe")
    return "stretch", max(whole), whole


def _convnext(_family: str, fields: Fields) -> tuple[str, int, tuple[int, int]]:
    sizes = _sizes(fields, "size", square=False)
    if set(sizes) != {"shortest_edge"}:
        raise _UnknownError("does not define its size by the shortest edge")
    side = sizes["shortest_edge"]
    if side >= _STRETCHED_FROM:
        return "stretch", side, (side, side)
    share = fields.number("crop_pct")
    if not 0.1 <= share <= 1:
        raise fields.reject("crop_pct", f"is {share}, not a share of a picture")
    return "shorter_side", int(side / share), (side, side)


def _sizes(fields: Fields, key: str, square: bool) -> Mapping[str, int]:
    """Return sizes by name; older files have one number, whose meaning depends on the processor."""
    if not isinstance(fields.value(key), dict):
        side = fields.integer(key)
        return {"height": side, "width": side} if square else {"shortest_edge": side}
    inner = fields.child(key)
    return {name: inner.integer(name) for name in fields.mapping(key)}


def _pair(sizes: Mapping[str, int]) -> tuple[int, int] | None:
    return (sizes["height"], sizes["width"]) if set(sizes) == {"height", "width"} else None


def _mean_and_scale(family: str, fields: Fields) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Write (pixel × factor − mean) ÷ deviation as (pixel − mean ÷ factor) × (factor ÷ deviation)."""
    factor = 1.0
    if _flag(fields, "do_rescale", True):
        factor = fields.number("rescale_factor") if fields.has("rescale_factor") else 1 / 255
    if not _flag(fields, "do_normalize", family != "MobileViT"):
        return (0.0,) * 3, (factor,) * 3
    means, deviations = fields.numbers("image_mean"), fields.numbers("image_std")
    if factor <= 0 or not all(value > 0 for value in deviations):
        raise fields.reject("image_std", f"is {list(deviations)}, but must be positive")
    return tuple(mean / factor for mean in means), tuple(factor / deviation for deviation in deviations)


def _flag(fields: Fields, key: str, default: bool) -> bool:
    value = fields.value(key) if fields.has(key) else default
    if not isinstance(value, bool):
        raise fields.reject(key, f"is {value!r}, not true or false")
    return value


def class_labels(config: Mapping[str, JsonValue], path: Path) -> tuple[str, ...] | None:
    """Return the names in `id2label`; None if there are only the numbered ones that the library inserts."""
    known = config.get("id2label")
    if not isinstance(known, dict) or not known or len(known) > _MAX_LABELS:
        return None
    names = [known.get(str(index)) for index in range(len(known))]
    if not all(isinstance(name, str) and name.isprintable() for name in names):
        raise InputError(f"{path}: 'id2label' is not one line of text for each class, numbered from 0", "fix the file")
    texts = tuple(map(str, names))
    return None if texts == tuple(f"LABEL_{index}" for index in range(len(texts))) else texts
