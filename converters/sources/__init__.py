"""The kinds of models that users can convert: one file per kind, discovered by listing this folder."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path

from converters.options import flags
from converters.sources.source import ExportingSource, Source, SourceOptions
from runtimes.errors import UsageError

_FALLBACK = "artifact"  # accepts everything that no other source recognizes


@cache
def all_sources() -> tuple[Source, ...]:
    """Return every source, with the fallback last. No library is imported."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "source")
    sources: list[Source] = [
        vars(import_module(f"{__name__}.{name}"))[f"{name.title().replace('_', '')}Source"]() for name in names
    ]
    return tuple(sorted(sources, key=lambda one: one.id == _FALLBACK))


def source_of(path: Path) -> Source:
    """Return the source that recognizes `path`. Raises InputError for a file that only has the name of a model."""
    return next(one for one in all_sources() if one.recognizes(path))


def check_options(source: Source, options: SourceOptions, model: object) -> None:
    """Raise UsageError if `options` sets an option that the source does not have, naming the sources that have it."""
    foreign = {name: one for name, one in options.given().items() if name not in source.Options.declared()}
    if foreign:
        takers = ", ".join(one.id for one in all_sources() if foreign.keys() <= one.Options.declared().keys())
        raise UsageError(
            f"{' and '.join(flags(foreign))} does not apply to {model}", f"leave it out; it is for: {takers}"
        )


def exporting_source(name: str) -> ExportingSource:
    """Return the exporting source with this id. Raises UsageError if there is none."""
    known = {one.id: one for one in all_sources() if isinstance(one, ExportingSource)}
    if name not in known:
        raise UsageError(f"there is no source '{name}' that exports a model", f"sources: {', '.join(known)}")
    return known[name]
