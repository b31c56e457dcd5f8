"""The options for turning a picture into the model's input."""

from __future__ import annotations

import argparse

from edge.inference.preprocessing import NO_PRESET, PRESETS, PreprocessOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the preprocessing options."""
    group = parser.add_argument_group("how a picture becomes the model's input (needed for a model without manifest)")
    group.add_argument("--preprocess", choices=[*PRESETS, NO_PRESET], help="a preset; the options below override it")
    group.add_argument("--mean", type=_channels, metavar="M[,M,M]", help="subtracted from each pixel value, 0 to 255")
    group.add_argument("--scale", type=_channels, metavar="S[,S,S]", help="the difference is multiplied by it")
    group.add_argument("--layout", choices=["NHWC", "NCHW"], help="default: read from the input's shape")
    group.add_argument("--color", choices=["RGB", "BGR"], help="order of the channels (default: RGB)")
    group.add_argument(
        "--resize",
        choices=["shorter_side", "stretch", "letterbox"],
        help="default: as is usual for the task; for classes shorter_side, which crops in the center",
    )


def preprocess_options_from(args: argparse.Namespace) -> PreprocessOptions:
    """Return the parsed preprocessing options."""
    return PreprocessOptions(
        preset=args.preprocess,
        mean=args.mean,
        scale=args.scale,
        layout=args.layout,
        color=args.color,
        resize=args.resize,
    )


def _channels(text: str) -> tuple[float, ...]:
    """Parse one number for all channels, or three."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) not in (1, 3):
        raise argparse.ArgumentTypeError(f"{text!r} is not one number, nor three separated by commas")
    return values * 3 if len(values) == 1 else values
