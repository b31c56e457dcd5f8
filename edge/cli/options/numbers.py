"""Argument types for numbers, which reject values that no command accepts, and options that several commands have."""

from __future__ import annotations

import math
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

_MAX_PORT = 65535


def count(text: str) -> int:
    """Parse a whole number, 1 or more."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise ArgumentTypeError(f"'{text}' is not a whole number over 0")
    return number


def seconds(text: str) -> float:
    """Parse a number of seconds, finite and over 0."""
    number = _number(text)
    if not 0 < number < math.inf:
        raise ArgumentTypeError(f"'{text}' is not a number of seconds over 0")
    return number


def non_negative(text: str) -> float:
    """Parse a finite number, 0 or more."""
    number = _number(text)
    if not 0 <= number < math.inf:
        raise ArgumentTypeError(f"'{text}' is not a number of 0 or more")
    return number


def share(text: str) -> float:
    """Parse a number from 0 to 1."""
    number = _number(text)
    if not 0 <= number <= 1:
        raise ArgumentTypeError(f"'{text}' is not a number from 0 to 1")
    return number


def percent(text: str) -> float:
    """Parse a share such as 5%; the sign is required, as 0.05 without it may mean either."""
    number = _number(text.removesuffix("%")) if text.endswith("%") else math.nan
    if not 0 <= number < math.inf:
        raise ArgumentTypeError(f"'{text}' is not a share in percent, such as 5%")
    return number / 100


def _number(text: str) -> float:
    """Parse a number; NaN for anything else, which no comparison accepts."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def add_meter(parser: ArgumentParser) -> None:
    """Add the option for the file of a power meter, see `edge.benchmark.energy`."""
    what = "the CSV log of a power meter: time, watts (or volts, amps)"
    parser.add_argument("--energy-csv", type=Path, metavar="FILE", help=what)


def port(text: str, lowest: int = 0) -> int:
    """Parse a port; 0 lets the system choose one."""
    number = int(text) if text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_PORT)) else -1
    if not lowest <= number <= _MAX_PORT:
        raise ArgumentTypeError(f"'{text}' is not a port: {lowest} to {_MAX_PORT}")
    return number


def fixed_port(text: str) -> int:
    """Parse a port that the user chooses."""
    return port(text, lowest=1)
