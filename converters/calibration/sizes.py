"""Choose two sizes for each free axis of a model to verify it with, because the result has to keep the axes free.

A free leading axis is the batch, which is 1. If another input has it in another place, such as a state in [layers,
batch, channels], it is 2, and grows only if the model does not run with 2.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from runtimes.arrays import Arrays
from runtimes.artifact import TensorSpec
from runtimes.shapes import is_picture_side

Sizes = Mapping[str, int]

# Sides of pictures are multiples of 32, which most networks need; lengths are of texts, then of sounds.
_SIDES = (64, 128, 256, 640, 32, 8)
_LENGTHS = (16, 24, 128, 400, 4000, 16000)
_BATCHES = (2, 3, 4, 16, 128, 400)
_MAX_VALUES = 2**22  # of an input; larger sizes are not tried, unless no smaller one is
_APART = (32, 8)  # between the two sides of a picture, and between two lengths


def free_names(inputs: Sequence[TensorSpec]) -> dict[str, bool]:
    """Return the names of the free axes that are not the batch, and whether each is a side of a picture."""
    return {
        size: is_picture_side(spec, axis)
        for spec in inputs
        for axis, size in enumerate(spec.shape)
        if isinstance(size, str) and axis
    }


def candidate_sizes(inputs: Sequence[TensorSpec]) -> Iterator[Sizes]:
    """Yield sizes to try, each set first with axes that differ, then with axes that are equal; {} if none is free."""
    names = free_names(inputs)
    if not names:
        yield {}
        return
    leading = {spec.shape[0] for spec in inputs if spec.shape}
    for round_number, (side, length, batch) in enumerate(zip(_SIDES, _LENGTHS, _BATCHES, strict=True)):
        apart, equal = {}, {}
        for place, (name, is_side) in enumerate(names.items()):
            equal[name] = batch if name in leading else side if is_side else length
            step = 0 if name in leading else min(side, _APART[0]) if is_side else _APART[1]
            apart[name] = equal[name] + place * step
        for sizes in (apart, equal) if equal != apart else (apart,):
            if round_number == 0 or _largest(inputs, sizes) <= _MAX_VALUES:
                yield sizes


def other_sizes(inputs: Sequence[TensorSpec], known: Arrays) -> Iterator[Sizes]:
    """Yield sizes to try in which every free axis differs from the samples `known`, [n, *shape]."""
    used = sizes_of(known, inputs)
    for sizes in candidate_sizes(inputs):
        if sizes and all(size != used.get(name) for name, size in sizes.items()):
            yield sizes


def _largest(inputs: Sequence[TensorSpec], sizes: Sizes) -> int:
    """Return the number of values of the largest input."""
    shapes = [[sizes.get(size, 1) if isinstance(size, str) else size for size in spec.shape] for spec in inputs]
    return max(math.prod(shape) for shape in shapes)


def with_sizes(inputs: Sequence[TensorSpec], sizes: Sizes) -> tuple[TensorSpec, ...]:
    """Return the inputs with the named axes set."""
    return tuple(
        replace(spec, shape=tuple(sizes.get(size, size) if isinstance(size, str) else size for size in spec.shape))
        for spec in inputs
    )


def sizes_of(arrays: Arrays, inputs: Sequence[TensorSpec]) -> Sizes:
    """Return the sizes that samples [n, *shape], with or without the batch dimension, give to free axes."""
    sizes: dict[str, int] = {}
    for spec in inputs:
        if spec.name not in arrays:
            continue
        given, axes = arrays[spec.name].shape[1:], list(enumerate(spec.shape))
        if len(given) == len(axes) - 1:
            axes = axes[1:]
        for (axis, size), found in zip(axes, given, strict=False):
            if isinstance(size, str) and axis:
                sizes.setdefault(size, found)
    return sizes


def resize(samples: Arrays, inputs: Sequence[TensorSpec], sizes: Sizes) -> Arrays:
    """Return samples [n, *shape] with their free axes in other sizes: cut, or repeated from the start."""
    arrays = {}
    for spec in inputs:
        values = samples[spec.name]
        for axis, size in enumerate(spec.shape):
            if isinstance(size, str) and size in sizes:
                values = np.take(values, np.arange(sizes[size]) % values.shape[axis + 1], axis=axis + 1)
        arrays[spec.name] = values
    return arrays
