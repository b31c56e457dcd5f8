"""Quantize a GGUF file in a worker process, with a progress bar. The output file is written atomically."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converters.gguf import encoder_name
from edge.console.progress import ProgressBar
from edge.llm.loading import model_file
from edge.workers.process import OnProgress, Worker
from runtimes.artifact.json_fields import JsonObject, to_json
from runtimes.errors import EngineError, HostError, InputError, UsageError
from runtimes.jobs import Progress
from runtimes.llm.llama_cpp.quantize import count_types, normalize_type
from runtimes.model_files.gguf import GgufFile, read_gguf
from runtimes.quantization_jobs import ImportanceJob, PerplexityJob, QuantizeJob, TensorError, UncertainValue

_MAX_TEXT_BYTES = 64 * 2**20
# Block size: K-quants pack 256 weights of a row; rows of other widths fall back to another type.
_BLOCK = 256
_WORST = 5  # tensors in the report


@dataclass(frozen=True, kw_only=True)
class FileSummary:
    """A GGUF file.

    bytes: Its size.
    bits_per_weight: On average over all tensors.
    tensors: Number of tensors by type.
    """

    bytes: int
    bits_per_weight: float
    tensors: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Fallback:
    """A tensor of another type than requested, because its rows do not fill whole blocks.

    tensor: Its name.
    type: The type that it has.
    row: Weights per row.
    """

    tensor: str
    type: str
    row: int


@dataclass(frozen=True, kw_only=True)
class TextPerplexity:
    """The perplexity of both models on a text.

    text: The name of the text file.
    tokens: Number of scored tokens.
    before: Perplexity of the source.
    after: Perplexity of the quantized file.
    ratio: after / before.
    kl_divergence: From the source's distribution to the quantized file's, over the first `kl_tokens` scored tokens.
    same_top: The share of these at which the most likely token is the same.
    """

    text: str
    tokens: int
    before: UncertainValue
    after: UncertainValue
    ratio: UncertainValue
    kl_divergence: UncertainValue
    kl_tokens: int
    same_top: float


@dataclass(frozen=True, kw_only=True)
class Importance:
    """The importance matrix that was used: the name of its file or text, and the number of tensors that it has."""

    source: str
    tensors: int


@dataclass(frozen=True, kw_only=True)
class QuantizationReport:
    """The written file, and how it compares to its source.

    worst: The tensors that lost most, the worst first.
    perplexity: None if no text was given.
    importance: None without an importance matrix.
    """

    file: str
    type: str
    before: FileSummary
    after: FileSummary
    fallbacks: Sequence[Fallback]
    perplexity: TextPerplexity | None
    worst: Sequence[TensorError] = ()
    importance: Importance | None = None

    def to_json(self) -> JsonObject:
        """Return the output of `edge quantize --json`."""
        return to_json(self)


def quantize(
    model: Path,
    kind: str,
    *,
    out: Path | None = None,
    text: Path | None = None,
    imatrix: Path | None = None,
    imatrix_text: Path | None = None,
    threads: int | None = None,
    again: bool = False,
    force: bool = False,
    quiet: bool = False,
) -> QuantizationReport:
    """Quantize a GGUF file to another type.

    `model` is a file or an artifact's folder; the new file is written next to it, unless `out` names another place.
    `imatrix` is a file of llama-imatrix, `imatrix_text` a text from which the same is computed here.
    """
    kind = normalize_type(kind)
    requested, model = model, Path(model_file(str(model)))
    # Not inside an artifact's folder, which stays as it was proven.
    folder = requested.resolve().parent if requested.is_dir() else model.parent
    target = out or folder / f"{model.stem}-{kind}.gguf"
    before = read_gguf(model)
    _check(model, target, force)
    if imatrix and imatrix_text:
        raise UsageError("there are two importance matrices", "give one of --imatrix and --imatrix-text")
    for given in filter(None, (text, imatrix_text)):
        _check_text(given)
    with Worker() as worker, _Temporary(target) as place, tempfile.TemporaryDirectory(prefix="edge-") as scratch:
        matrix = imatrix.resolve() if imatrix else None
        if imatrix_text:
            matrix = _importance_of(imatrix_text, worker, model, Path(scratch), threads, quiet)
        job = QuantizeJob(
            artifact=str(model),
            out=str(place),
            type=kind,
            threads=threads,
            again=again,
            imatrix=str(matrix) if matrix else None,
        )
        with ProgressBar(len(before.tensors), "quantizing", quiet=quiet) as bar, _write_errors(target):
            written = worker.run(job, timeout_s=None, on_progress=_show_on(bar))
        after = read_gguf(place)
        perplexity = _perplexity(worker, model, place, text, quiet) if text else None
        place.replace(target)
    _copy_encoder(model, target)
    source = imatrix or imatrix_text
    return QuantizationReport(
        file=str(target),
        type=kind,
        before=_description(before),
        after=_description(after),
        fallbacks=list_fallbacks(after, kind),
        perplexity=perplexity,
        worst=written.errors[:_WORST],
        importance=Importance(source=source.name, tensors=written.importance) if source else None,
    )


def _copy_encoder(model: Path, target: Path) -> None:
    """Copy the picture encoder of `model`, if it has one, to the place where `target` looks for it."""
    encoder, place = (path.with_name(encoder_name(path.stem)) for path in (model, target))
    if encoder.is_file() and not place.exists():
        with _write_errors(place):
            shutil.copyfile(encoder, place)


def _importance_of(text: Path, worker: Worker, model: Path, scratch: Path, threads: int | None, quiet: bool) -> Path:
    """Compute the importance matrix of a text, and return its file."""
    matrix = scratch / "imatrix.dat"
    job = ImportanceJob(artifact=str(model), text=str(text), out=str(matrix), threads=threads)
    with ProgressBar(100, "importance", quiet=quiet) as bar:
        worker.run(job, timeout_s=None, on_progress=_show_on(bar))
    return matrix


def list_fallbacks(file: GgufFile, kind: str) -> list[Fallback]:
    """List the matrices whose rows do not fill whole blocks of the type."""
    block = _BLOCK if "_k" in kind or kind == "iq4_xs" else 32
    if kind in ("fp16", "fp32", "bf16"):
        return []
    matrices = (tensor for tensor in file.tensors if len(tensor.shape) > 1)
    return [
        Fallback(tensor=tensor.name, type=tensor.type, row=tensor.shape[0])
        for tensor in matrices
        if tensor.shape[0] % block
    ]


def _description(file: GgufFile) -> FileSummary:
    return FileSummary(bytes=file.size, bits_per_weight=round(file.bits_per_weight, 3), tensors=count_types(file))


def _check(model: Path, target: Path, force: bool) -> None:
    if target.exists() and target.resolve() == model.resolve():
        raise UsageError(f"{target} is the input file", "choose another one with --out")
    if target.is_dir() or (target.exists() and not force):
        raise UsageError(f"{target} exists", "choose another file with --out, or replace it with --force")


def _check_text(text: Path) -> None:
    if not text.is_file():
        raise InputError(f"{text} does not exist", "give a file of plain text")
    if text.stat().st_size > _MAX_TEXT_BYTES:
        raise InputError(f"{text} is larger than {_MAX_TEXT_BYTES >> 20} MiB", "give a part of it")


def _perplexity(worker: Worker, model: Path, place: Path, text: Path, quiet: bool) -> TextPerplexity:
    job = PerplexityJob(artifact=str(place), before=str(model), text=str(text))
    with ProgressBar(100, "perplexity", quiet=quiet) as bar:
        answer = worker.run(job, timeout_s=None, on_progress=_show_on(bar))
    return TextPerplexity(text=text.name, **vars(answer))


def _show_on(bar: ProgressBar) -> OnProgress:
    shown = 0

    def show(progress: Progress) -> None:
        nonlocal shown
        steps = progress["done"] - shown
        if steps > 0:
            bar.advance(progress["doing"], steps)
            shown += steps

    return show


@contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    """Report a failed write as HostError: llama.cpp only says that a C++ stream failed."""
    try:
        yield
    except EngineError as error:
        if "iostream error" not in error.message:
            raise
        raise HostError(f"{target} could not be written completely", "is the disk full?") from None


class _Temporary:
    """A temporary file next to `target`; removed at the end if it still exists, also on Ctrl+C."""

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
        self._place.chmod(0o666 & ~_umask())  # mkstemp lets only the owner read the file
        return self._place

    def __exit__(self, *_: object) -> None:
        self._place.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
