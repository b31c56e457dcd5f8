"""Quantize a GGUF file to another type with llama.cpp, and count the resulting types of its tensors."""

from __future__ import annotations

import ctypes
import re
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Iterator

from runtimes.errors import EngineError, InputError, UsageError
from runtimes.llm.llama_cpp import library as llama
from runtimes.llm.llama_cpp.importance import Importance, as_parameter, check_importance
from runtimes.model_files.gguf import GgufFile, read_gguf
from runtimes.registry import engine, is_installed, missing

# Type → llama.cpp's number (enum llama_ftype in llama.h).
TYPES = {
    "fp32": 0,
    "fp16": 1,
    "bf16": 32,
    "q8_0": 7,
    "q6_k": 18,
    "q5_k_m": 17,
    "q5_k_s": 16,
    "q5_1": 9,
    "q5_0": 8,
    "q4_k_m": 15,
    "q4_k_s": 14,
    "q4_1": 3,
    "q4_0": 2,
    "iq4_nl": 25,
    "iq4_xs": 30,
    "q3_k_l": 13,
    "q3_k_m": 12,
    "q3_k_s": 11,
    "q2_k": 10,
}
_ALIASES = {"f16": "fp16", "f32": "fp32"}
_ALREADY = ("F32", "F16", "BF16")
# "[  12/  75] blk.1.attn_q.weight ..." in the log; "-> falling back to q5_0" if a width does not suit the type.
_TENSOR = re.compile(r"\[\s*(\d+)/\s*(\d+)\]\s*(\S+)")

OnTensor = Callable[[int, int, str], None]  # number, of how many, name


def normalize_type(word: str) -> str:
    """Normalize the name of a type: "Q4_K_M", "f16". Raises UsageError for an unknown one, listing the types."""
    name = _ALIASES.get(word.lower(), word.lower())
    if name not in TYPES:
        raise UsageError(f"there is no type '{word}'", f"types: {', '.join(TYPES)}")
    return name


def quantize_file(
    source: Path,
    target: Path,
    kind: str,
    *,
    threads: int | None = None,
    again: bool = False,
    importance: Importance | None = None,
    on_tensor: OnTensor = lambda _done, _total, _name: None,
) -> None:
    """Write `target` in the type `kind`; it is removed if that fails. `importance` weighs the columns' errors.

    Raises InputError for a broken file, and for a file that is already quantized unless `again`; EngineError if
    llama.cpp fails; EngineMissingError if it is not installed.
    """
    adapter = engine("llama_cpp")
    if not is_installed(adapter):
        raise missing(adapter)
    file = read_gguf(source)
    quantized = sorted(set(file.bytes_by_type()) - set(_ALREADY))
    if quantized and not again:
        what = f"{source} is already quantized ({', '.join(quantized)}): quantizing it again loses additional accuracy"
        raise InputError(what, "start from the fp16 file, or allow it with --again")
    if importance is not None:
        check_importance(importance, file, "the importance matrix")
    library = llama.load()
    parameters = library.llama_model_quantize_default_params()
    parameters.ftype = TYPES[normalize_type(kind)]
    parameters.nthread = threads or 0
    parameters.allow_requantize = again
    if importance:
        entries = as_parameter(library, importance)  # alive until llama.cpp is done
        parameters.imatrix = ctypes.cast(entries, ctypes.POINTER(library.llama_model_imatrix_data))
    try:
        with _listening(library, on_tensor) as complaints:
            status = library.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(parameters))
        if status:
            why = f": {complaints[-1]}" if complaints else ""
            raise EngineError(
                f"llama_cpp cannot quantize {source} to {kind}{why}", "see the types: edge quantize --help"
            )
        read_gguf(target)  # on a full disk llama.cpp writes an incomplete file without an error
    except BaseException:
        with suppress(OSError):
            target.unlink()
        raise


def count_types(file: GgufFile) -> dict[str, int]:
    """Count the tensors of each type, the most frequent first."""
    counts: dict[str, int] = {}
    for tensor in file.tensors:
        counts[tensor.type] = counts.get(tensor.type, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@contextmanager
def _listening(library: Any, on_tensor: OnTensor) -> Iterator[list[str]]:
    """Read llama.cpp's log while it works, one line per tensor, and yield its errors."""
    complaints: list[str] = []

    def log(level: int, text: bytes, _data: Any) -> None:
        line = text.decode("utf-8", "replace")
        match = _TENSOR.match(line.strip())
        if match:
            on_tensor(int(match[1]), int(match[2]), match[3])
        elif level == llama.ERROR and line.strip():
            complaints.append(line.strip()[:200])

    callback = library.llama_log_callback(log)
    library.llama_log_set(callback, ctypes.c_void_p(0))
    try:
        yield complaints
    finally:
        llama.listen(library)
