"""Find converters: the files `converters/*_to_*.py`, and extensions."""

from __future__ import annotations

import pkgutil
from functools import cache
from importlib import import_module

import converters
from converters.base import Converter
from converters.options import ConvertOptions
from runtimes.errors import UsageError
from runtimes.extensions import load


@cache
def all_converters() -> tuple[Converter, ...]:
    """Return all converters, sorted by name, extensions last. No engine is imported."""
    names = sorted(module.name for module in pkgutil.iter_modules(converters.__path__) if "_to_" in module.name)
    found: list[Converter] = [vars(import_module(f"converters.{name}"))[_class_name(name)]() for name in names]
    extensions = load("edge.converters", names, _check_converter).found
    return (*found, *(extensions[name] for name in sorted(extensions)))


def _check_converter(found: object) -> None:
    if not isinstance(found, Converter):
        raise TypeError("it is not a converters.base.Converter")


def _class_name(module: str) -> str:
    """Return the class in a converter's file: `OnnxToTflite` in `onnx_to_tflite.py`."""
    return "".join(part.capitalize() for part in module.split("_"))


def converter(name: str) -> Converter:
    """Return the converter called `name`. Raises UsageError for an unknown name."""
    known = {one.id: one for one in all_converters()}
    if name not in known:
        raise UsageError(f"there is no converter '{name}'", f"converters: {', '.join(known)}")
    return known[name]


def options_type(steps: tuple[str, ...]) -> type[ConvertOptions]:
    """Return the options class of a route, which is that of its last converter."""
    return converter(steps[-1]).Options if steps else ConvertOptions


def target_of_options(options: ConvertOptions) -> str | None:
    """Return the target format implied by options that only its converters have."""
    if not options.own():
        return None
    return next(one.target for one in all_converters() if one.Options is type(options))
