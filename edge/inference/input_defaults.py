"""Determine the preprocessing of pictures for a model without a manifest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge.inference.author_metadata import pictures_of
from edge.inference.preprocessing import PreprocessOptions, override, preprocess_for
from edge.inspection import Inspection
from runtimes.artifact import Artifact, Preprocess, TensorSpec
from runtimes.artifact.json_fields import JsonValue
from runtimes.errors import InputError, UsageError
from runtimes.model_files.facts import channels_of
from runtimes.session import format_shape
from runtimes.shapes import free_axes, suggestion
from runtimes.task import PictureDefaults

_Triple = tuple[float, ...]
# ONNX's names for the range of pixel values (docs/MetadataProps.md in onnx/onnx) → mean and scale.
_ONNX_RANGES = {
    "NominalRange_0_255": (0.0, 1.0),
    "Normalized_0_1": (0.0, 1 / 255),
    "Normalized_1_1": (127.5, 1 / 127.5),
}
CLASSIFIERS = PictureDefaults("shorter_side")
_MAX_VALUES = 3 * 2**24  # values in an input: 4096 × 4096 pixels, more than any classifier takes


def preprocess_of(
    artifact: Artifact,
    spec: TensorSpec,
    options: PreprocessOptions,
    found: Inspection | None,
    assumptions: list[str],
    usual: PictureDefaults = CLASSIFIERS,
) -> Preprocess:
    """Return the manifest's preprocessing, or derive it from the user's options, the file's metadata and assumptions.

    artifact: The model.
    spec: Its input.
    options: The user's options.
    found: The result of inspecting its file; None if the format cannot be inspected.
    assumptions: A list to which each assumption is added as a sentence.
    usual: How models of its kind take pictures.

    Raises UsageError if the scaling of a float input is not specified anywhere, and InputError if the input is not a
    picture.
    """
    _check_picture(artifact, spec)
    stated = artifact.manifest.preprocess
    if stated is not None:
        return _check_fit(artifact, spec, override(stated, options, spec))
    author = pictures_of(found.properties if found else {})
    if options.preset is None or options.preset == "none":
        mean, scale = _mean_and_scale(artifact, spec, options, found, assumptions, usual)
        options = replace(options, preset=None, mean=mean, scale=scale)
    if channels_of(spec) == 1:
        assumptions.append("its single channel is the gray of the picture")
    elif options.color is None:
        options = replace(options, color=author.color or _color(found, assumptions))
    resize = options.resize or author.resize or usual.resize
    preprocess = preprocess_for(replace(options, resize=resize), spec)
    preprocess = replace(preprocess, pad=usual.pad if author.pad is None else author.pad)
    if options.resize is None and author.resize is None:
        assumptions.append(_resize_assumption(preprocess))
    return _check_fit(artifact, spec, preprocess)


def _resize_assumption(preprocess: Preprocess) -> str:
    height, width = preprocess.crop
    if preprocess.resize == "stretch":
        return f"pictures are stretched to {height} × {width}, {preprocess.method} (--resize)"
    if preprocess.resize == "letterbox":
        return f"pictures are scaled to fit into {height} × {width}, with borders of gray {preprocess.pad} (--resize)"
    return (
        f"pictures are resized to a shorter side of {preprocess.size} and cropped to {height} × {width} in the center, "
        f"{preprocess.method}, as is usual for ImageNet (--resize)"
    )


def _check_fit(artifact: Artifact, spec: TensorSpec, preprocess: Preprocess) -> Preprocess:
    channels = (preprocess.channels,)
    if spec.shape[1:] != (preprocess.crop + channels if preprocess.layout == "NHWC" else channels + preprocess.crop):
        raise InputError(
            f"{artifact.model} takes {format_shape(spec.shape)}; pictures of {format_shape(preprocess.crop)} "
            f"in the layout {preprocess.layout} do not fit",
            "leave out --layout; if it comes from an artifact's manifest, convert the model again with `edge convert`",
        )
    return preprocess


def _check_picture(artifact: Artifact, spec: TensorSpec) -> None:
    """Check that the input is one picture of a fixed size, with one or three channels first or last."""
    shape = spec.shape
    sizes = [size for size in shape[1:] if isinstance(size, int) and size > 0]
    is_picture = channels_of(spec) > 0
    if is_picture and free_axes(spec):
        what = f"{artifact.model} takes pictures of any size: {spec.dtype}{format_shape(shape)}"
        raise UsageError(what, f"name the size, such as {suggestion(spec, {})}")
    if not is_picture or len(sizes) != 3 or math.prod(sizes) > _MAX_VALUES:
        what = f"{artifact.model} takes {spec.dtype}{format_shape(shape)}"
        raise InputError(
            f"{what}, not one picture of a fixed size in color or gray", "list its inputs with `edge inspect`"
        )


def _mean_and_scale(
    artifact: Artifact,
    spec: TensorSpec,
    options: PreprocessOptions,
    found: Inspection | None,
    assumptions: list[str],
    usual: PictureDefaults,
) -> tuple[_Triple, _Triple]:
    if (options.mean is None) != (options.scale is None):
        raise UsageError("--mean and --scale go together: pixel p becomes (p − mean) × scale", "pass both")
    if options.mean is not None and options.scale is not None:
        return options.mean, options.scale
    stated, raw = _stated(found), _raw_pixels(spec)
    if stated is not None and (raw is None or _says_more(spec, stated, raw)):
        return stated
    if raw is not None:
        why = "nothing else is specified"
        if stated is not None:
            why = "its metadata and its quantization cancel out" if spec.quantization else "cannot hold scaled pixels"
        assumptions.append(f"pixels are passed unscaled, 0…255: the input is {spec.dtype} and {why} (--preprocess)")
        return raw
    if usual.mean is not None and usual.scale is not None:
        low, high = ((pixel - usual.mean) * usual.scale for pixel in (0, 255))
        assumptions.append(f"pixels are scaled to {low:g}…{high:g}, as {usual.family} take them (--mean, --scale)")
        return (usual.mean,) * 3, (usual.scale,) * 3
    raise UsageError(
        f"{artifact.model} does not specify how pixels are scaled to its {spec.dtype} input",
        "choose a preset with --preprocess, or pass --mean and --scale: pixel p becomes (p − mean) × scale",
    )


def _stated(found: Inspection | None) -> tuple[_Triple, _Triple] | None:
    """Return mean and scale from the file's metadata."""
    if found is None:
        return None
    mean, deviation = _numbers(found.metadata.get("mean")), _numbers(found.metadata.get("std"))
    if len(mean) in (1, 3) and len(deviation) == len(mean) and all(deviation):
        repeat = 3 // len(mean)
        return mean * repeat, tuple(1 / value for value in deviation) * repeat
    author = pictures_of(found.properties)
    if author.mean is not None and author.scale is not None:
        return author.mean, author.scale
    onnx_range = _ONNX_RANGES.get(found.properties.get("Image.NominalPixelRange", ""))
    return ((onnx_range[0],) * 3, (onnx_range[1],) * 3) if onnx_range else None


def _numbers(value: JsonValue) -> tuple[float, ...]:
    return tuple(float(item) for item in value if isinstance(item, int | float)) if isinstance(value, Sequence) else ()


def _raw_pixels(spec: TensorSpec) -> tuple[_Triple, _Triple] | None:
    """Return the mean and scale that map a pixel to itself (unsigned or wide) or to the pixel minus 128 (int8)."""
    lowest = {"uint8": 0, "int8": -128, "int32": 0, "int64": 0}.get(spec.dtype)
    if lowest is None:
        return None
    if spec.quantization is None:
        return (float(-lowest),) * 3, (1.0,) * 3
    zero_point, scale = spec.quantization.zero_points[0], spec.quantization.scales[0]
    return (float(zero_point - lowest),) * 3, (scale,) * 3


def _says_more(spec: TensorSpec, stated: tuple[_Triple, _Triple], raw: tuple[_Triple, _Triple]) -> bool:
    """Return whether metadata says something else of an integer input than to pass the pixels as they are.

    Quantized, they are the same if they differ by at most one step for every pixel value. Without quantization,
    integers cannot hold pixels that are scaled to a smaller range: the model scales them itself.
    """
    if spec.quantization is None:
        return max(map(abs, stated[1])) >= 1
    pixels = np.arange(256)[:, np.newaxis]
    first, second = ((pixels - np.asarray(mean)) * np.asarray(scale) for mean, scale in (stated, raw))
    return bool((np.abs(first - second) > abs(spec.quantization.scales[0])).any())


def _color(found: Inspection | None, assumptions: list[str]) -> str:
    stated = (found.properties.get("Image.BitmapPixelFormat", "") if found else "")[:3].upper()
    if stated in Preprocess.ALLOWED["color"]:
        return stated
    assumptions.append("the colors are in RGB order (--color)")
    return "RGB"
