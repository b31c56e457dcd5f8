"""Calibration samples from the user's own Python code: a function that yields them one by one.

A sample is an array, with or without the batch dimension, or {input name: array} for a model with several inputs.
`[array]`, as TFLite's `representative_dataset` yields it, is that array, and {"pixels": uint8 [h, w, 3]} a picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np

from converters.calibration import MOST
from converters.quiet import useful_line
from converters.user_code import imported
from runtimes.arrays import LARGEST, Array, Arrays
from runtimes.errors import InputError

_ALONE = "samples"  # the name of a sample's only array, where it bears none
_HINT = "yield one array at a time, or {input name: array} for a model with several inputs"


@dataclass(frozen=True)
class Generated:
    """What a generator yielded, [n, *shape] by name; `stopped` says why no more was asked for, empty at its end."""

    arrays: Arrays
    stopped: str
    digest: str

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.arrays.values())))


def generate(where: str, on_sample: Callable[[int], None] = lambda _count: None, largest: int = LARGEST) -> Generated:
    """Run the code that `where` names (`converters.user_code`), at most `MOST` samples and `largest` bytes of them.

    InputError for everything that fails in it, for what is no sample, and where it yields none.
    """
    samples: list[Arrays] = []
    size, stopped = 0, ""
    for sample in _checked(_yielded(where), where):
        size += sum(values.nbytes for values in sample.values())
        if size > largest:
            stopped = f"{largest / 2**30:.3g} GiB are full"
            break
        samples.append(sample)
        on_sample(len(samples))
        if len(samples) == MOST:
            stopped = "more are not needed"
            break
    if not samples:
        what = "a sample too large to keep" if stopped else "no sample"
        raise InputError(f"{where} yields {what}", _HINT)
    arrays = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return Generated(arrays, stopped, _digest(arrays))


def _yielded(where: str) -> Iterator[Any]:
    value = imported(where)
    try:
        yield from value() if callable(value) else value
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        told = useful_line(error)
        kind = "" if told == type(error).__name__ else f"{type(error).__name__}: "
        raise InputError(f"{where} failed: {kind}{told}", f"it is called without arguments; {_HINT}") from error


def _checked(samples: Iterator[Any], where: str) -> Iterator[Arrays]:
    """Each sample as arrays by name, as long as it is like the first."""
    first: dict[str, Any] | None = None
    for number, sample in enumerate(samples, 1):
        found = _arrays(sample, f"sample {number} of {where}")
        form = {name: (values.shape, values.dtype.str) for name, values in found.items()}
        first = first or form
        if form != first:
            raise InputError(f"sample {number} of {where} is {_told(form)}, the first {_told(first)}", _HINT)
        yield found


def _arrays(sample: Any, which: str) -> Arrays:
    if isinstance(sample, (list, tuple)) and len(sample) == 1:
        sample = sample[0]
    if isinstance(sample, (list, tuple, str, bytes)):
        raise InputError(f"{which} is a {type(sample).__name__}", _HINT)
    named = sample if isinstance(sample, Mapping) else {_ALONE: sample}
    if not named:
        raise InputError(f"{which} is empty", _HINT)
    return {str(name): _array(values, which) for name, values in named.items()}


def _array(values: Any, which: str) -> Array:
    try:
        array = np.ascontiguousarray(values)
    except Exception as error:  # tensors of other libraries: on a GPU, with a gradient, ...
        raise InputError(f"{which} cannot be made a numpy array: {useful_line(error)}", _HINT) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{which} holds {array.dtype}, not numbers", _HINT)
    return array


def _told(form: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    parts = (f"{name}: {np.dtype(kind)}{list(shape)}" for name, (shape, kind) in sorted(form.items()))
    return "{" + ", ".join(parts) + "}"


def _digest(arrays: Arrays) -> str:
    """Of names, types, shapes and values."""
    found = sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype.str} {values.shape} ".encode())
        found.update(values.data)
    return found.hexdigest()
