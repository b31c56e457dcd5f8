"""Calibration samples from the user's own Python code: a generator function.

A sample is an array, with or without the batch dimension, or {input name: array} for a model with several inputs.
`[array]`, as TFLite's `representative_dataset` yields it, is that array, and {"pixels": uint8 [h, w, 3]} a picture.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import numpy as np

from converters.calibration.dataset import MAX_SAMPLES
from converters.library_calls import first_useful_line
from runtimes.arrays import MAX_NPZ_BYTES, Array, Arrays
from runtimes.errors import InputError

_ALONE = "samples"  # the name of a sample's only array if it has none
_HINT = "yield one array at a time, or {input name: array} for a model with several inputs"


@dataclass(frozen=True, kw_only=True)
class GeneratedSamples:
    """The samples of a generator, [n, *shape] by name; `stopped` says why it was stopped early, or is empty."""

    arrays: Arrays
    stopped: str
    digest: str

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.arrays.values())))


def generate(
    where: str, on_sample: Callable[[int], None] = lambda _count: None, largest: int = MAX_NPZ_BYTES
) -> GeneratedSamples:
    """Run the code that `where` names (`converters.calibration.generator`), at most `MAX_SAMPLES` samples and
    `largest` bytes of them.

    Raises InputError if the code fails, yields something that is not a sample, or yields nothing.
    """
    samples: list[Arrays] = []
    size, stopped = 0, ""
    for sample in _check_samples(_iterate(where), where):
        size += sum(values.nbytes for values in sample.values())
        if size > largest:
            stopped = f"{largest / 2**30:.3g} GiB are full"
            break
        samples.append(sample)
        on_sample(len(samples))
        if len(samples) == MAX_SAMPLES:
            stopped = "more are not needed"
            break
    if not samples:
        what = "a sample too large to keep" if stopped else "no sample"
        raise InputError(f"{where} yields {what}", _HINT)
    arrays = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return GeneratedSamples(arrays=arrays, stopped=stopped, digest=_digest(arrays))


def _iterate(where: str) -> Iterator[Any]:
    value = import_reference(where)
    try:
        yield from value() if callable(value) else value
    except (Exception, SystemExit) as error:  # user code may raise anything
        reason = first_useful_line(error)
        kind = "" if reason == type(error).__name__ else f"{type(error).__name__}: "
        raise InputError(f"{where} failed: {kind}{reason}", f"it is called without arguments; {_HINT}") from error


def _check_samples(samples: Iterator[Any], where: str) -> Iterator[Arrays]:
    """Yield each sample as arrays by name. All must have the form of the first."""
    first: dict[str, Any] | None = None
    for number, sample in enumerate(samples, 1):
        found = _arrays(sample, f"sample {number} of {where}")
        form = {name: (values.shape, values.dtype.str) for name, values in found.items()}
        first = first or form
        if form != first:
            raise InputError(
                f"sample {number} of {where} is {_describe_shapes(form)}, the first {_describe_shapes(first)}", _HINT
            )
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
        raise InputError(f"{which} cannot be made a numpy array: {first_useful_line(error)}", _HINT) from error
    if array.dtype.kind not in "biuf":
        raise InputError(f"{which} holds {array.dtype}, not numbers", _HINT)
    return array


def _describe_shapes(form: Mapping[str, tuple[tuple[int, ...], str]]) -> str:
    parts = (f"{name}: {np.dtype(kind)}{list(shape)}" for name, (shape, kind) in sorted(form.items()))
    return "{" + ", ".join(parts) + "}"


def _digest(arrays: Arrays) -> str:
    """Return a digest of names, types, shapes and values."""
    found = sha256()
    for name, values in sorted(arrays.items()):
        found.update(f"{name} {values.dtype.str} {values.shape} ".encode())
        found.update(values.data)
    return found.hexdigest()


_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"


_REFERENCE = re.compile(rf"(?:.+\.py|{_DOTTED}):{_DOTTED}")


def is_reference(text: str) -> bool:
    """Return whether the text has the form `module:name` or `file.py:name` and is not a file."""
    return _REFERENCE.fullmatch(text) is not None and not Path(text).exists()


def import_reference(where: str) -> Any:
    """Import what the reference names, with the current folder first on the path, as in `python -m`.

    Importing runs the code. Raises InputError for everything that fails.
    """
    place, _, attribute = where.rpartition(":")
    _first_on_path(Path.cwd())
    try:
        value: Any = import_file(Path(place)) if place.endswith(".py") else import_module(place)
        for part in attribute.split("."):
            if not hasattr(value, part):
                raise AttributeError(f"{place} has no '{part}'")
            value = getattr(value, part)
    except (Exception, SystemExit) as error:  # user code may raise anything
        raise InputError(f"{where} cannot be imported: {first_useful_line(error)}", _import_hint(place)) from error
    return value


def import_file(path: Path) -> Any:
    """Import a Python file under a name of its own, with its folder first on the path. Importing runs the code."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    _first_on_path(path.parent.resolve())  # as for `python file.py`: its neighbors can be imported
    name = f"_user_{path.stem}"  # a file called random.py must not replace the module of that name
    spec = spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look up their module
    spec.loader.exec_module(module)
    return module


def _first_on_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _import_hint(place: str) -> str:
    command = f"python {place}" if place.endswith(".py") else f"python -c 'import {place}'"
    return f"check that `{command}` works in this folder and with this Python"
