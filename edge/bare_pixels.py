"""How a picture becomes the input of a model that has no manifest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from edge.inspection import Inspection
from edge.preprocessing import Said, override, preprocess_for
from runtimes.artifact import Artifact, Preprocess, TensorSpec
from runtimes.errors import InputError, UsageError
from runtimes.session import format_shape

_Triple = tuple[float, ...]
# ONNX's own words for the range of pixels (docs/MetadataProps.md in onnx/onnx) → mean and scale.
_ONNX_RANGES = {
    "NominalRange_0_255": (0.0, 1.0),
    "Normalized_0_1": (0.0, 1 / 255),
    "Normalized_1_1": (127.5, 1 / 127.5),
}
_MOST_VALUES = 3 * 2**24  # of an input: 4096 × 4096 pixels, more than any classifier takes


def preprocess_of(
    artifact: Artifact, spec: TensorSpec, said: Said, found: Inspection | None, assumptions: list[str]
) -> Preprocess:
    """The manifest's preprocessing, or one from what was said, what the file says, and assumptions, added to the list.

    UsageError where float pixels are scaled in a way that nothing tells; InputError where the input is no picture.
    """
    _check_picture(artifact, spec)
    stated = artifact.manifest.preprocess
    if stated is not None:
        return _fitting(artifact, spec, override(stated, said, spec))
    if said.way is None or said.way == "none":
        mean, scale = _mean_and_scale(artifact, spec, said, found, assumptions)
        said = replace(said, way=None, mean=mean, scale=scale)
    if said.color is None:
        said = replace(said, color=_color(found, assumptions))
    made = preprocess_for(said, spec)
    if said.resize is None:
        height, width = made.crop
        assumptions.append(
            f"pictures are resized to a shorter side of {made.size} and cropped to {height} × {width} in the centre, "
            f"{made.method}, as is usual for ImageNet (--resize)"
        )
    return _fitting(artifact, spec, made)


def _fitting(artifact: Artifact, spec: TensorSpec, made: Preprocess) -> Preprocess:
    if spec.shape[1:] != ((*made.crop, 3) if made.layout == "NHWC" else (3, *made.crop)):
        raise InputError(
            f"{artifact.model} takes {format_shape(spec.shape)}; pictures of {format_shape(made.crop)} "
            f"in the layout {made.layout} do not fit",
            "leave --layout out; where an artifact's manifest says it, write the artifact again with `edge convert`",
        )
    return made


def _check_picture(artifact: Artifact, spec: TensorSpec) -> None:
    """One picture, three channels first or last, of a fixed size."""
    shape = spec.shape
    sizes = [size for size in shape[1:] if isinstance(size, int) and size > 0]
    is_picture = len(shape) == 4 and 3 in (shape[1], shape[3]) and (shape[0] == 1 or isinstance(shape[0], str))
    if not is_picture or len(sizes) != 3 or math.prod(sizes) > _MOST_VALUES:
        raise InputError(
            f"{artifact.model} takes {spec.dtype}{format_shape(shape)}, not one picture of a fixed size in 3 colours",
            "see its inputs with `edge inspect`",
        )


def _mean_and_scale(
    artifact: Artifact, spec: TensorSpec, said: Said, found: Inspection | None, assumptions: list[str]
) -> tuple[_Triple, _Triple]:
    if (said.mean is None) != (said.scale is None):
        raise UsageError("--mean and --scale go together: pixel p becomes (p − mean) × scale", "give both")
    if said.mean is not None and said.scale is not None:
        return said.mean, said.scale
    stated, raw = _stated(found), _raw_pixels(spec)
    if stated is not None and not (raw is not None and _same_steps(spec, stated, raw)):
        return stated
    if raw is not None:
        why = "its metadata and its quantisation cancel out" if stated else "nothing else is said"
        assumptions.append(f"pixels go in as they are, 0…255: the input is {spec.dtype} and {why} (--preprocess)")
        return raw
    raise UsageError(
        f"{artifact.model} does not say how pixels become its {spec.dtype} input",
        "name a way with --preprocess, or give --mean and --scale: pixel p becomes (p − mean) × scale",
    )


def _stated(found: Inspection | None) -> tuple[_Triple, _Triple] | None:
    """Mean and scale from the metadata of TFLite or ONNX."""
    metadata = found.metadata if found else {}
    mean, deviation = metadata.get("mean", ()), metadata.get("std", ())
    if len(mean) in (1, 3) and len(deviation) == len(mean) and all(deviation):
        repeat = 3 // len(mean)
        return tuple(mean) * repeat, tuple(1 / value for value in deviation) * repeat
    onnx_range = _ONNX_RANGES.get(metadata.get("properties", {}).get("Image.NominalPixelRange", ""))
    return ((onnx_range[0],) * 3, (onnx_range[1],) * 3) if onnx_range else None


def _raw_pixels(spec: TensorSpec) -> tuple[_Triple, _Triple] | None:
    """Mean and scale by which an input of 8 bits gets the pixel itself (uint8), or the pixel less 128 (int8)."""
    lowest = {"uint8": 0, "int8": -128}.get(spec.dtype)
    if lowest is None:
        return None
    if spec.quantization is None:
        return (float(-lowest),) * 3, (1.0,) * 3
    zero_point, scale = spec.quantization.zero_points[0], spec.quantization.scales[0]
    return (float(zero_point - lowest),) * 3, (scale,) * 3


def _same_steps(spec: TensorSpec, one: tuple[_Triple, _Triple], other: tuple[_Triple, _Triple]) -> bool:
    """Whether two ways to scale pixels differ by at most one step of the input's quantisation, for every pixel."""
    step = spec.quantization.scales[0] if spec.quantization else 1.0
    pixels = np.arange(256)[:, np.newaxis]
    first, second = ((pixels - np.asarray(mean)) * np.asarray(scale) for mean, scale in (one, other))
    return bool((np.abs(first - second) <= abs(step)).all())


def _color(found: Inspection | None, assumptions: list[str]) -> str:
    stated = str(found.metadata.get("properties", {}).get("Image.BitmapPixelFormat", "") if found else "")[:3].upper()
    if stated in Preprocess.ALLOWED["color"]:
        return stated
    assumptions.append("the colours are in the order RGB (--color)")
    return "RGB"
