"""How pictures become a bare model's input, as the user says it: named ways, and single values that override them."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from runtimes.errors import UsageError

if TYPE_CHECKING:
    from runtimes.manifest import Preprocess, TensorSpec

# Name → (mean, scale) of (pixel − mean) × scale, per channel, and what it is for. `tflite-uint8` takes both from the
# input's quantisation: the byte is the pixel.
_TFLITE = "tflite-uint8"
_WAYS: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "keras-mobilenet-v2": ((127.5,) * 3, (1 / 127.5,) * 3),
    "torchvision": (
        tuple(255 * mean for mean in (0.485, 0.456, 0.406)),
        tuple(1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)),
    ),
    _TFLITE: ((0.0,) * 3, (1.0,) * 3),
}
_NONE = "none"
_CROP_OF_RESIZED = 224 / 256  # ImageNet's custom: the shorter side is 256 where the crop is 224


@dataclass(frozen=True)
class Said:
    """What the user said of the input; None where nothing."""

    way: str | None = None
    mean: tuple[float, ...] | None = None
    scale: tuple[float, ...] | None = None
    layout: str | None = None
    color: str | None = None
    resize: str | None = None

    @property
    def anything(self) -> bool:
        """Whether there is anything to make a `Preprocess` from."""
        single = (self.mean, self.scale, self.layout, self.color, self.resize)
        return self.way not in (None, _NONE) or any(value is not None for value in single)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how a picture becomes the model's input."""
    group = parser.add_argument_group("how a picture becomes the model's input (needed for a model without manifest)")
    group.add_argument("--preprocess", choices=[*_WAYS, _NONE], help="a named way; the options below override it")
    group.add_argument("--mean", type=_channels, metavar="M[,M,M]", help="subtracted from each pixel value, 0 to 255")
    group.add_argument("--scale", type=_channels, metavar="S[,S,S]", help="the difference is multiplied by it")
    group.add_argument("--layout", choices=["NHWC", "NCHW"], help="default: read from the input's shape")
    group.add_argument("--color", choices=["RGB", "BGR"], help="order of the channels (default: RGB)")
    group.add_argument("--resize", choices=["shorter_side", "stretch"], help="default: shorter_side, centre crop")


def said(args: argparse.Namespace) -> Said:
    """The options as values."""
    return Said(args.preprocess, args.mean, args.scale, args.layout, args.color, args.resize)


def preprocess_for(spoken: Said, spec: TensorSpec) -> Preprocess:
    """The way to the input `spec` (float or quantised, [1, h, w, 3] or [1, 3, h, w]).

    UsageError when the input is no picture, or when neither a way nor mean and scale were said.
    """
    from runtimes.manifest import Preprocess

    layout = spoken.layout or _layout(spec)
    mean, scale = _mean_and_scale(spoken, spec)
    sizes = spec.shape[1:3] if layout == "NHWC" else spec.shape[2:4]
    crop = tuple(size for size in sizes if isinstance(size, int))
    if len(crop) != 2:
        raise UsageError(f"input '{spec.name}' is {list(spec.shape)}, not a picture", "leave out --preprocess")
    return Preprocess(
        resize=spoken.resize or "shorter_side",
        size=round(max(crop) / _CROP_OF_RESIZED),
        crop=(crop[0], crop[1]),
        method="bilinear",
        layout=layout,
        color=spoken.color or "RGB",
        mean=mean,
        scale=scale,
    )


def override(known: Preprocess, spoken: Said, spec: TensorSpec) -> Preprocess:
    """`known` with what was said in its place."""
    if spoken.way not in (None, _NONE):
        return preprocess_for(spoken, spec)
    single = {key: getattr(spoken, key) for key in ("mean", "scale", "layout", "color", "resize")}
    return replace(known, **{key: value for key, value in single.items() if value is not None})


def _mean_and_scale(spoken: Said, spec: TensorSpec) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if spoken.way == _TFLITE:
        if spec.quantization is None:
            raise UsageError(
                f"{_TFLITE} needs a quantised input; '{spec.name}' is {spec.dtype}", "say --mean and --scale"
            )
        way = (float(spec.quantization.zero_points[0]),) * 3, (spec.quantization.scales[0],) * 3
        return spoken.mean or way[0], spoken.scale or way[1]
    if spoken.way in _WAYS:
        return spoken.mean or _WAYS[spoken.way][0], spoken.scale or _WAYS[spoken.way][1]
    if spoken.mean is None or spoken.scale is None:
        raise UsageError(
            "how pixel values are scaled was not said", "name a way with --preprocess, or --mean and --scale"
        )
    return spoken.mean, spoken.scale


def _layout(spec: TensorSpec) -> str:
    if len(spec.shape) == 4 and spec.shape[3] == 3:
        return "NHWC"
    if len(spec.shape) == 4 and spec.shape[1] == 3:
        return "NCHW"
    what = f"input '{spec.name}' is {list(spec.shape)}, not a picture with three channels"
    raise UsageError(what, "leave out --preprocess, and give its inputs as an .npz")


def _channels(text: str) -> tuple[float, ...]:
    """One number for all channels, or three."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not one number, or three with commas between")
    return values * 3 if len(values) == 1 else values
