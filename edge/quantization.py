"""Quantising a GGUF file from the host's side: the worker, the bar, and a file that appears whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.progress import Progress
from edge.text_loading import model_file
from edge.workers import Worker
from runtimes.errors import EngineError, HostError, InputError, UsageError
from runtimes.gguf_file import GgufFile, read_gguf
from runtimes.llama.quantize import histogram, type_of

_LARGEST_TEXT = 64 * 2**20
# A type's blocks: K-quants take 256 weights of a row together, and rows of other widths another type.
_BLOCK = 256


def quantize(
    model: Path,
    kind: str,
    *,
    out: Path | None = None,
    text: Path | None = None,
    threads: int | None = None,
    again: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Write the file and answer {"file", "type", "before", "after", "fallbacks", "perplexity"}.

    `model` is a file, or an artifact's folder: the new file comes beside either, unless `out` says where.
    `before` and `after` are {"bytes", "bits_per_weight", "tensors": {type: count}}; `perplexity` is None without one.
    """
    kind = type_of(kind)
    given, model = model, Path(model_file(str(model)))  # a folder stays as it was proven
    beside = given.resolve().parent if given.is_dir() else model.parent
    target = out or beside / f"{model.stem}-{kind}.gguf"
    before = read_gguf(model)
    _check(model, target, text, force)
    with Worker() as worker, _Temporary(target) as place:
        job = {"artifact": str(model), "out": str(place), "type": kind, "threads": threads, "again": again}
        with Progress(len(before.tensors), "quantising", quiet=quiet) as bar, _mapped(target):
            worker.run({"job": "quantize", **job}, timeout_s=None, on_progress=_shown_on(bar))
        after = read_gguf(place)
        found = _perplexity(worker, model, place, text, quiet) if text else None
        place.replace(target)
    return {
        "file": str(target),
        "type": kind,
        "before": _told(before),
        "after": _told(after),
        "fallbacks": fallbacks(after, kind),
        "perplexity": found,
    }


def fallbacks(file: GgufFile, kind: str) -> list[dict[str, Any]]:
    """The matrices whose rows do not fill the blocks of the type: {"tensor", "type", "row"}."""
    block = _BLOCK if "_k" in kind or kind == "iq4_xs" else 32
    if kind in ("fp16", "fp32", "bf16"):
        return []
    matrices = (tensor for tensor in file.tensors if len(tensor.shape) > 1)
    return [
        {"tensor": tensor.name, "type": tensor.type, "row": tensor.shape[0]}
        for tensor in matrices
        if tensor.shape[0] % block
    ]


def _told(file: GgufFile) -> dict[str, Any]:
    return {"bytes": file.size, "bits_per_weight": round(file.bits_per_weight, 3), "tensors": histogram(file)}


def _check(model: Path, target: Path, text: Path | None, force: bool) -> None:
    if target.exists() and target.resolve() == model.resolve():
        raise UsageError(f"{target} is the file that is read", "choose another one with --out")
    if target.is_dir() or (target.exists() and not force):
        raise UsageError(f"{target} exists", "choose another file with --out, or replace it with --force")
    if text is not None and not text.is_file():
        raise InputError(f"{text} does not exist", "give a file of plain text")
    if text is not None and text.stat().st_size > _LARGEST_TEXT:
        raise InputError(f"{text} has more than {_LARGEST_TEXT >> 20} MiB", "give a part of it")


def _perplexity(worker: Worker, model: Path, place: Path, text: Path, quiet: bool) -> dict[str, Any]:
    job = {"job": "perplexity", "artifact": str(place), "before": str(model), "text": str(text)}
    with Progress(100, "perplexity", quiet=quiet) as bar:
        answer = worker.run(job, timeout_s=None, on_progress=_shown_on(bar))
    return {"text": text.name, **answer}


def _shown_on(bar: Progress) -> Callable[[dict[str, Any]], None]:
    shown = 0

    def show(progress: dict[str, Any]) -> None:
        nonlocal shown
        steps = progress["done"] - shown
        if steps > 0:
            bar.advance(progress["doing"], steps)
            shown += steps

    return show


@contextmanager
def _mapped(target: Path) -> Iterator[None]:
    """A write that fails is the host's error: of llama.cpp one hears only that a C++ stream failed."""
    try:
        yield
    except EngineError as error:
        if "iostream error" not in error.message:
            raise
        raise HostError(f"{target} cannot be written to its end", "is the disk full?") from None


class _Temporary:
    """A name beside `target` for a file on its way there; what is left at the end is removed, Ctrl+C included."""

    def __init__(self, target: Path) -> None:
        self._target = target
        self._place = target

    def __enter__(self) -> Path:
        try:
            handle, name = tempfile.mkstemp(prefix=f".{self._target.name}.", suffix=".partial", dir=self._target.parent)
        except OSError as error:
            raise HostError(
                f"{self._target} cannot be written: {error.strerror}", "choose another with --out"
            ) from None
        os.close(handle)
        self._place = Path(name)
        self._place.chmod(0o666 & ~_umask())  # mkstemp's own mode would keep the file to its owner
        return self._place

    def __exit__(self, *_: object) -> None:
        self._place.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
