"""Read the inputs of a model from files: pictures, which are preprocessed, and arrays in `.npy` and `.npz` files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np

from edge.inference.images import SUFFIXES, find_files, load_picture
from runtimes.arrays import MAX_NPZ_BYTES, Array, Arrays, load_arrays
from runtimes.artifact import Artifact, TensorSpec
from runtimes.errors import InputError
from runtimes.model_files.facts import picture_input
from runtimes.session import concrete_shape, format_shape
from runtimes.task import Placement
from runtimes.tensors import pixels_to_input, zeros

ARRAY_SUFFIXES = (".npy", ".npz")
SOUND_SUFFIXES = (".wav", ".wave")
TEXT_SUFFIX = ".txt"


@dataclass(frozen=True)
class InlineText:
    """A text that is not in a file of its own, and the name by which results and messages call it."""

    name: str
    text: str

    def __str__(self) -> str:
        return self.name


Source = Path | InlineText


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One input of a model.

    source: The file that it comes from, followed by `[N]` if the file contains several samples.
    feeds: Input name → array, as passed to the model.
    placement: The placement of the picture in the input; None if the input is not a picture.
    preprocess_ms: The duration of reading and preprocessing it.
    """

    source: str
    feeds: Arrays
    placement: Placement | None = None
    preprocess_ms: float = 0.0


def is_array_file(source: Source) -> bool:
    """Return whether a file contains arrays, judged by its suffix."""
    return isinstance(source, Path) and source.suffix.lower() in ARRAY_SUFFIXES


def is_text(source: Source) -> bool:
    """Return whether an input is a text."""
    return isinstance(source, InlineText) or source.suffix.lower() == TEXT_SUFFIX


def is_picture_file(source: Source) -> bool:
    """Return whether a file is taken for a picture, which must be preprocessed: what nothing else claims."""
    if is_text(source) or is_array_file(source):
        return False
    return isinstance(source, Path) and source.suffix.lower() not in SOUND_SUFFIXES


def find_inputs(folder: Path) -> list[Path]:
    """Find the inputs in `folder` and its subfolders, sorted by path.

    They are its pictures; if it has none, its sounds, else its arrays, else its texts. Raises InputError if there are
    none of these either.
    """
    files = find_files(folder)
    kinds = (SUFFIXES, SOUND_SUFFIXES, ARRAY_SUFFIXES, (TEXT_SUFFIX,))
    found = ([path for path in files if path.suffix.lower() in suffixes] for suffixes in kinds)
    first = next(filter(None, found), None)
    if first is None:
        known = " ".join(suffix for suffixes in kinds for suffix in suffixes)
        raise InputError(f"{folder} contains no pictures, sounds, arrays or texts", f"known suffixes: {known}")
    return first


def read_picture_sample(artifact: Artifact, path: Path) -> Sample:
    """Read and preprocess a picture; the other inputs, which are states, get zeros.

    Raises InputError if the file is not a complete picture.
    """
    manifest, start = artifact.manifest, perf_counter()
    assert manifest.preprocess is not None
    pixels, placement = load_picture(path, manifest.preprocess)
    first = picture_input(manifest.inputs) or manifest.inputs[0]
    picture = pixels_to_input(pixels, first, manifest.preprocess)
    is_batch = len(first.shape) == picture.ndim  # TorchVision's detectors take a picture without that axis
    batch = concrete_shape(first)[0] if is_batch else 1  # a fixed batch is filled with copies of the picture
    feeds = {spec.name: zeros(spec) for spec in manifest.inputs if spec is not first}
    feeds[first.name] = np.repeat(picture, batch, axis=0) if is_batch else picture[0]
    milliseconds = (perf_counter() - start) * 1000
    return Sample(source=str(path), feeds=feeds, placement=placement, preprocess_ms=milliseconds)


def read_array_samples(artifact: Artifact, path: Path) -> Iterator[Sample]:
    """Read the samples in an array file, see `samples_of_arrays`. Raises InputError if it cannot be read."""
    return samples_of_arrays(artifact, _read(path), str(path))


def samples_of_arrays(artifact: Artifact, arrays: Mapping[str, Array], source: str) -> Iterator[Sample]:
    """Yield the samples in arrays by input name: one sample, or several that are stacked on a new first axis.

    The name is ignored if the model has a single input. Raises InputError if the arrays do not match its inputs.
    """
    specs = artifact.manifest.inputs
    arrays = _by_input(source, arrays, specs)
    single = all(_fits(arrays[spec.name].shape, spec) for spec in specs)
    if single:
        yield Sample(source=source, feeds={spec.name: _as_dtype(arrays[spec.name], spec) for spec in specs})
        return
    counts = {arrays[spec.name].shape[0] if arrays[spec.name].ndim else 0 for spec in specs}
    if len(counts) != 1 or not all(_fits(arrays[spec.name].shape[1:], spec) for spec in specs):
        raise _misfit(source, arrays, specs)
    for index in range(counts.pop()):
        feeds = {spec.name: _as_dtype(np.asarray(arrays[spec.name][index]), spec) for spec in specs}
        yield Sample(source=f"{source}[{index}]", feeds=feeds)


def _read(path: Path) -> Arrays:
    if path.suffix.lower() == ".npz":
        return load_arrays(path, hint="save it with numpy.savez")
    try:
        if path.stat().st_size > MAX_NPZ_BYTES:
            raise InputError(f"{path} has {path.stat().st_size} bytes; the limit is {MAX_NPZ_BYTES}", "split it")
        with path.open("rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist", "pass a picture, a .npy or a .npz file") from None
    except (OSError, ValueError, EOFError, MemoryError) as error:  # MemoryError: a header that promises too much
        raise InputError(f"{path} is not a readable .npy: {error}", "save it with numpy.save") from None
    return {"": array}


def _by_input(source: str, arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> Mapping[str, Array]:
    """Map the arrays to the model's input names; a single array belongs to a model's single input."""
    names = [spec.name for spec in specs]
    if len(arrays) == len(names) == 1:
        return {names[0]: next(iter(arrays.values()))}
    if set(arrays) != set(names):
        contents = ", ".join(name or "one array without a name" for name in sorted(arrays)) or "no array"
        raise InputError(
            f"{source} contains {contents}; the model takes {', '.join(names)}",
            "pass an .npz with one array for each input",
        )
    return arrays


def _fits(shape: tuple[int, ...], spec: TensorSpec) -> bool:
    return len(shape) == len(spec.shape) and all(
        isinstance(wanted, str) or size == wanted for size, wanted in zip(shape, spec.shape, strict=True)
    )


def _as_dtype(array: Array, spec: TensorSpec) -> Array:
    """Convert an array to the model's dtype if that is safe: floats to floats, and integers that fit."""
    wanted = np.dtype(spec.dtype)
    if array.dtype == wanted or not (array.dtype.kind == "f" == wanted.kind or array.dtype.kind in "iu"):
        return array
    cast = array.astype(wanted)
    return cast if array.dtype.kind == "f" or np.array_equal(cast, array) else array


def _misfit(source: str, arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> InputError:
    spec = next(spec for spec in specs if not _fits(arrays[spec.name].shape, spec))
    array = arrays[spec.name]
    actual = f"{array.dtype.name}{format_shape(array.shape)}"
    return InputError(
        f"{source}: input '{spec.name}' is {actual}; the model takes {spec.dtype}{format_shape(spec.shape)}",
        "pass arrays of that shape, or several of them stacked on a new first axis",
    )
