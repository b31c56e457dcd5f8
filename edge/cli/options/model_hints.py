"""The options for what a model may not say itself: its task, its sizes, how a picture becomes its input."""

from __future__ import annotations

import argparse
from pathlib import Path

from edge.cli.options.numbers import count
from edge.inference.preprocessing import NO_PRESET, PRESETS, ModelHints, PreprocessOptions


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the options for the task, its classes, and the rate of sounds."""
    parser.add_argument("--task", metavar="ID", help="what the model does, such as detection (default: detected)")
    parser.add_argument("--rate", type=count, metavar="HZ", help="samples per second of the sound that the model takes")
    parser.add_argument("--labels", type=Path, metavar="FILE", help="one label per line, one for each class")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the options for the output of a classifier."""
    parser.add_argument("--output", choices=["probability", "logit"], help="the kind of output (default: detected)")
    parser.add_argument("--label-offset", type=int, choices=[0, 1], help="1 if the first class is the background")


def add_shapes(parser: argparse.ArgumentParser) -> None:
    """Add the option for sizes of free axes, see `runtimes.shapes`."""
    parser.add_argument(
        "--shape",
        action="append",
        default=[],
        metavar="[NAME=]SIZES",
        help="sizes for the free axes of an input, such as 1x3x480x640 or ids=1x128; once for each input",
    )


def add_preprocessing(parser: argparse.ArgumentParser) -> None:
    """Add the options for turning a picture into the model's input."""
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


def model_hints_from(args: argparse.Namespace) -> ModelHints:
    """Return all parsed options of this module."""
    options = preprocess_options_from(args)
    return ModelHints(
        preprocess_options=options,
        output=args.output,
        label_offset=args.label_offset,
        labels=args.labels,
        task=args.task,
        rate=args.rate,
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
