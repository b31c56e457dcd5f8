"""What several commands take: numbers, by `type=` functions that refuse at once what no command can mean; a meter."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path


def count(text: str) -> int:
    """A whole number, 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"'{text}' is not a whole number over 0")
    return number


def seconds(text: str) -> float:
    """A finite number over 0, in seconds."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"'{text}' is not a number of seconds over 0")
    return number


def add_meter(parser: ArgumentParser) -> None:
    """The file of a power meter, see `edge.bench.energy`."""
    what = "what a power meter writes meanwhile: time, watts (or volts, amps)"
    parser.add_argument("--energy-csv", type=Path, metavar="FILE", help=what)
