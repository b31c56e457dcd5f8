"""The user's options for preprocessing pictures: presets, and single values that override them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from runtimes.artifact.manifest import Preprocess, TensorSpec

# Preset → (mean, scale) of (pixel − mean) × scale, per channel. `tflite-uint8` takes both from the input's
# quantization, so that each pixel becomes the byte of the same value.
_TFLITE = "tflite-uint8"
PRESETS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "keras-mobilenet-v2": ((127.5,) * 3, (1 / 127.5,) * 3),
    "torchvision": (
        tuple(255 * mean for mean in (0.485, 0.456, 0.406)),
        tuple(1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)),
    ),
    _TFLITE: ((0.0,) * 3, (1.0,) * 3),
}
NO_PRESET = "none"
_CROP_OF_RESIZED = 224 / 256  # the ImageNet convention: a shorter side of 256 for a crop of 224


@dataclass(frozen=True, kw_only=True)
class PreprocessOptions:
    """The user's options for the input; None if not specified."""

    preset: str | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    layout: str | None = None
    color: str | None = None
    resize: str | None = None

    @property
    def anything(self) -> bool:
        """Whether the user specified anything."""
        single = (self.mean, self.scale, self.layout, self.color, self.resize)
        return self.preset not in (None, NO_PRESET) or any(value is not None for value in single)


def preprocess_for(options: PreprocessOptions, spec: TensorSpec) -> Preprocess:
    """Return the preprocessing for the input `spec` (float or quantized, [1, h, w, 3] or [1, 3, h, w]).

    Raises UsageError if the input is not a picture, or if neither a preset nor mean and scale are specified.
    """
    from runtimes.artifact.manifest import Preprocess
    from runtimes.model_files.facts import channels_of

    layout = options.layout or _layout(spec)
    mean, scale = _mean_and_scale(options, spec)
    sizes = spec.shape[1:3] if layout == "NHWC" else spec.shape[2:4]
    crop = tuple(size for size in sizes if isinstance(size, int))
    if len(crop) != 2:
        raise UsageError(f"input '{spec.name}' is {list(spec.shape)}, not a picture", "leave out --preprocess")
    return Preprocess(
        resize=options.resize or "shorter_side",
        size=round(max(crop) / _CROP_OF_RESIZED),
        crop=(crop[0], crop[1]),
        method="bilinear",
        layout=layout,
        color="GRAY" if channels_of(spec) == 1 else options.color or "RGB",
        mean=mean,
        scale=scale,
    )


def override(known: Preprocess, options: PreprocessOptions, spec: TensorSpec) -> Preprocess:
    """Replace values of `known` with those that the user specified."""
    if options.preset not in (None, NO_PRESET):
        return preprocess_for(options, spec)
    single = {key: getattr(options, key) for key in ("mean", "scale", "layout", "color", "resize")}
    return replace(known, **{key: value for key, value in single.items() if value is not None})


def _mean_and_scale(options: PreprocessOptions, spec: TensorSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if options.preset == _TFLITE:
        if spec.quantization is None:
            raise UsageError(
                f"{_TFLITE} needs a quantized input; '{spec.name}' is {spec.dtype}", "pass --mean and --scale"
            )
        mean, scale = (float(spec.quantization.zero_points[0]),) * 3, (spec.quantization.scales[0],) * 3
        return options.mean or mean, options.scale or scale
    if options.preset in PRESETS:
        return options.mean or PRESETS[options.preset][0], options.scale or PRESETS[options.preset][1]
    if options.mean is None or options.scale is None:
        raise UsageError(
            "the scaling of pixel values is not known", "choose a preset with --preprocess, or pass --mean and --scale"
        )
    return options.mean, options.scale


def _layout(spec: TensorSpec) -> str:
    from runtimes.model_files.facts import channels_of, is_channels_last

    if channels_of(spec):
        return "NHWC" if is_channels_last(spec) else "NCHW"
    what = f"input '{spec.name}' is {list(spec.shape)}, not a picture with one or three channels"
    raise UsageError(what, "leave out --preprocess, and pass its inputs as an .npz")


@dataclass(frozen=True, kw_only=True)
class ModelHints:
    """The user's hints about a model; None leaves a value to the manifest or the file.

    preprocess_options: The preprocessing of pictures.
    output: What the numbers of the output are, such as "probability".
    label_offset: The row of the output that belongs to class 0.
    labels: A file with one label per line.
    task: The task's id.
    rate: The samples per second of sound.
    """

    preprocess_options: PreprocessOptions = field(default_factory=PreprocessOptions)
    output: str | None = None
    label_offset: int | None = None
    labels: Path | None = None
    task: str | None = None
    rate: int | None = None
