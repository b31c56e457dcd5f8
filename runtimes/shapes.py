"""Sizes for a model's free axes as a user writes them: `x=1x3x480x640`, or `1x3x480x640` for a single input."""

from __future__ import annotations

import re
from dataclasses import replace
from math import prod
from typing import Mapping, Sequence

from runtimes.artifact.manifest import TensorSpec
from runtimes.errors import UsageError
from runtimes.session import format_shape

MAX_ELEMENTS = 2**30  # of one input: 4 GiB of float32
# What `suggestion` names: the side of a picture, a length in tokens or steps, and a second of sound in samples.
_SIDE, _LENGTH, _SECOND = 224, 128, 16_000
_MAX_CHANNELS = 4  # an array with more channels is not a picture
_PICTURE_RANK = 4
_STATE_RANK = 3
_SHAPE = re.compile(r"(?:(?P<name>.+)=)?(?P<sizes>\d+(?:x\d+)*)?(?::(?P<dtype>\w+))?")
_UNNAMED = re.compile(r"d(im)?\d+")  # what readers call an axis without a name, so two of them need not be equal


def parse_shape(text: str) -> tuple[str, tuple[int, ...], str]:
    """Return the name, the sizes and the dtype in `[NAME=]SIZES[:TYPE]`; name and dtype are "" if absent.

    A scalar has no sizes: `NAME=` or `NAME=:TYPE`.

    Raises UsageError for text in another form, and for sizes that are 0 or too large.
    """
    found = _SHAPE.fullmatch(text)
    if found is None or not text:
        hint = "write [NAME=]SIZES, such as 1x3x480x640 or ids=1x128, once for each input"
        raise UsageError(f"--shape {text} cannot be understood", hint)
    sizes = tuple(int(size) for size in found["sizes"].split("x")) if found["sizes"] else ()
    if 0 in sizes or prod(sizes) > MAX_ELEMENTS:
        raise UsageError(f"--shape {text}: sizes are 1 or more, at most {MAX_ELEMENTS:,} values together")
    return found["name"] or "", sizes, found["dtype"] or ""


def shape_texts(shapes: Mapping[str, Sequence[int]] | Sequence[str]) -> tuple[str, ...]:
    """Return {input name: sizes} in the form of the command line; texts stay as they are."""
    if isinstance(shapes, Mapping):
        return tuple(f"{name}={'x'.join(map(str, sizes))}" for name, sizes in shapes.items())
    return tuple(shapes)


def with_shapes(inputs: Sequence[TensorSpec], shapes: Sequence[str]) -> tuple[TensorSpec, ...]:
    """Set the free axes of inputs to the sizes in `shapes`, and axes of other inputs that bear the same name.

    Raises UsageError for an unknown name, another rank, a size that contradicts a fixed axis or an axis of the same
    name, and another dtype.
    """
    specs = {spec.name: spec for spec in inputs}
    given: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, int] = {}
    for text in shapes:
        name, wanted, dtype = parse_shape(text)
        spec = _named(name, specs, text)
        if spec.name in given:
            raise UsageError(f"--shape names the input '{spec.name}' twice", "give one shape for each input")
        _check(spec, wanted, dtype)
        given[spec.name] = wanted
        for axis, size in zip(spec.shape, wanted):
            if not isinstance(axis, str) or _UNNAMED.fullmatch(axis):
                continue
            if sizes.setdefault(axis, size) != size:
                raise UsageError(f"the axis '{axis}' is {sizes[axis]} and {size} in --shape", "give it one size")
    return tuple(
        replace(spec, shape=given[spec.name] if spec.name in given else _filled(spec.shape, sizes)) for spec in inputs
    )


def free_axes(spec: TensorSpec) -> list[int]:
    """Return the free axes other than the leading one."""
    return [axis for axis, size in enumerate(spec.shape) if axis and isinstance(size, str)]


def suggestion(spec: TensorSpec, metadata: Mapping[str, str]) -> str:
    """Return a `--shape` for an input with free axes, from its type and rank.

    Pictures have the size in the file's metadata (`imgsz`), else 224x224; floats of which only a length is free are
    sound; all else, such as token ids, has a length of 128. The second axis of a state (2xNx128) is the batch.
    """
    listed = metadata.get("imgsz", "").strip("[]() ").replace(" ", "").split(",")
    sides = [int(one) for one in listed if one.isdecimal()] or [_SIDE]
    of_picture = [axis for axis in range(len(spec.shape)) if axis and is_picture_side(spec, axis)]
    usual = dict(zip(of_picture, (sides * 2)[:2]))
    length = 1 if _is_state(spec) else _SECOND if _is_sound(spec) else _LENGTH
    sizes = [
        size if isinstance(size, int) else 1 if axis == 0 else usual.get(axis, length)
        for axis, size in enumerate(spec.shape)
    ]
    return f"--shape {spec.name}={'x'.join(map(str, sizes))}"


def is_picture_side(spec: TensorSpec, axis: int) -> bool:
    """Return whether an axis is the height or the width of a picture."""
    shape = spec.shape
    if len(shape) != _PICTURE_RANK or not spec.dtype.startswith(("float", "int", "uint")):
        return False
    for channels, sides in ((1, (2, 3)), (3, (1, 2))):
        size = shape[channels]
        if isinstance(size, int) and size <= _MAX_CHANNELS:
            return axis in sides
    return False


def _is_sound(spec: TensorSpec) -> bool:
    """Return whether an input is a row of numbers, with one free length."""
    fixed = [size for size in spec.shape[1:] if isinstance(size, int)]
    return spec.dtype.startswith("float") and len(free_axes(spec)) == 1 and all(size == 1 for size in fixed)


def _is_state(spec: TensorSpec) -> bool:
    """Return whether an input looks like the state of recurrent layers: layers x batch x units, of several layers."""
    leading = spec.shape[0] if len(spec.shape) == _STATE_RANK else ""
    return isinstance(leading, int) and leading > 1 and free_axes(spec) == [1]


def _named(name: str, specs: Mapping[str, TensorSpec], text: str) -> TensorSpec:
    if not name and len(specs) == 1:
        return next(iter(specs.values()))
    if not name:
        names = ", ".join(specs)
        raise UsageError(
            f"the model takes {len(specs)} inputs ({names})", f"name one: --shape {next(iter(specs))}={text}"
        )
    if name not in specs:
        raise UsageError(f"the model has no input '{name}'", f"its inputs: {', '.join(specs)}")
    return specs[name]


def _check(spec: TensorSpec, wanted: Sequence[int], dtype: str) -> None:
    given = "x".join(map(str, wanted))
    takes = f"input '{spec.name}' is {format_shape(spec.shape)}"
    if len(wanted) != len(spec.shape):
        raise UsageError(f"{takes}; --shape {given} has {len(wanted)} sizes, not {len(spec.shape)}", "give every axis")
    for axis, (size, new) in enumerate(zip(spec.shape, wanted)):
        if not isinstance(size, str) and size != new:
            hint = "only axes with a name are free; the others keep their size"
            raise UsageError(f"{takes}; --shape {given} contradicts its fixed axis {axis}", hint)
    if dtype and dtype != spec.dtype:
        raise UsageError(f"{takes} of {spec.dtype}, not {dtype}", "leave the type out")


def _filled(shape: Sequence[int | str], sizes: Mapping[str, int]) -> tuple[int | str, ...]:
    return tuple(sizes.get(size, size) if isinstance(size, str) else size for size in shape)
