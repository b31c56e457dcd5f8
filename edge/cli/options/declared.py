"""Command-line arguments for the options that converters and sources declare (`converters.options`)."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from converters.options import ConvertOptions, Option, Options, flags
from converters.sources import check_options
from converters.sources.source import Source, SourceOptions
from runtimes.errors import UsageError

SomeOptions = TypeVar("SomeOptions", bound=Options)


def add_arguments(parser: argparse.ArgumentParser, kinds: Iterable[type[Options]]) -> None:
    """Add a group for each class of options with a title; options shared by several classes are added once."""
    known: set[str] = set()
    groups: dict[str, Any] = {"": parser}
    for kind in dict.fromkeys(kinds):
        fresh = {name: one for name, one in kind.declared().items() if one.flag not in known}
        known.update(flags(fresh))
        for name, one in fresh.items():
            if kind.title not in groups:
                groups[kind.title] = parser.add_argument_group(kind.title)
            _add(groups[kind.title], one, kind.from_json({}), name)


def read(args: argparse.Namespace, kind: type[SomeOptions]) -> SomeOptions:
    """Return the parsed options of one class."""
    values = {name: vars(args)[one.dest] for name, one in kind.declared().items()}
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def convert_options(
    args: argparse.Namespace, kinds: Sequence[type[ConvertOptions]], wanted: type[ConvertOptions] | None
) -> ConvertOptions:
    """Return the options of one converter: `wanted`, or the first for which specific options are given.

    Raises UsageError if options of two converters are given.
    """
    candidates = [options for kind in dict.fromkeys(kinds) if (options := read(args, kind)).own()]
    if not candidates:
        return read(args, ConvertOptions)
    chosen = next((one for one in candidates if type(one) is wanted), candidates[0])
    for other in candidates:
        if other is not chosen:
            what = f"{flags(other.own())[0]} cannot be combined with {flags(chosen.own())[0]}"
            raise UsageError(what, "leave one of them out: they belong to different formats")
    return chosen


def source_options(args: argparse.Namespace, chosen: Source, known: Sequence[Source]) -> SourceOptions:
    """Return the options of the chosen source. Raises UsageError for options that only another source supports."""
    for other in known:
        check_options(chosen, read(args, other.Options), args.model)
    return read(args, chosen.Options)


def _add(group: Any, one: Option, defaults: Options, name: str) -> None:
    default = getattr(defaults, name)
    if default is False:
        group.add_argument(one.flag, dest=one.dest, action="store_true", help=one.help)
    elif one.repeats:
        group.add_argument(
            one.flag, dest=one.dest, action="append", default=[], metavar=one.metavar, type=one.type, help=one.help
        )
    else:
        group.add_argument(one.flag, dest=one.dest, default=default, metavar=one.metavar, type=one.type, help=one.help)
