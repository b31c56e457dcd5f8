"""Importance matrices: how much each column of a weight matters, from a file of llama-imatrix, or from a text.

The importance of a column is the mean square of what it is multiplied with. Quantization then rounds the columns that
matter more carefully. Files: tools/imatrix of llama.cpp, in GGUF, or in the format that it wrote before (.dat).
"""

from __future__ import annotations

import ctypes
import struct
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Iterator, Mapping

import numpy as np

from runtimes.arrays import Array
from runtimes.errors import EngineError, InputError
from runtimes.host import performance_cores
from runtimes.jobs import Report
from runtimes.llm.llama_cpp import library as llama
from runtimes.model_files.gguf import MAGIC, GgufFile, read_gguf
from runtimes.quantization_jobs import ImportanceAnswer, ImportanceJob

_WINDOW = 512  # tokens, as llama-imatrix's
_F32 = 0  # enum ggml_type
_SUMS, _COUNTS = ".in_sum2", ".counts"
_MAX_DAT_BYTES = 2**32
_REMEDY = "make one from a text: --imatrix-text FILE"
Importance = Mapping[str, Array]  # float32, by the weight's name; one value for each column (of each expert)


class _Tensor(ctypes.Structure):
    """`struct ggml_tensor` of ggml.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * 4),
        ("nb", ctypes.c_size_t * 4),
        ("op", ctypes.c_int),
        ("op_params", ctypes.c_int32 * 16),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * 10),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("name", ctypes.c_char * 64),
    ]

    def values(self, kind: Any) -> Array:
        """Return its values, slowest axis first, without copying."""
        shape = tuple(reversed(self.ne))
        strides = tuple(reversed(self.nb))
        size = sum((count - 1) * step for count, step in zip(shape, strides)) + np.dtype(kind).itemsize
        memory = (ctypes.c_char * size).from_address(self.data)
        return np.ndarray(shape, kind, memory, strides=strides)


def read_importance(path: Path) -> Importance:
    """Read a file of llama-imatrix. Raises InputError if it is not one."""
    try:
        with path.open("rb") as stream:
            is_gguf = stream.read(len(MAGIC)) == MAGIC
        found = _read_gguf(path) if is_gguf else _read_dat(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check the path and its permissions") from None
    except (struct.error, UnicodeDecodeError):
        raise InputError(f"{path} is not an importance matrix of llama-imatrix", _REMEDY) from None
    if not found or not all(np.isfinite(values).all() and (values >= 0).all() for values in found.values()):
        raise InputError(f"{path} has no importance, or some that is negative or not finite", _REMEDY)
    return found


def _read_gguf(path: Path) -> dict[str, Array]:
    tensors = {tensor.name: tensor for tensor in read_gguf(path).tensors if tensor.type == "F32"}

    def values(name: str) -> Array:
        tensor = tensors[name]
        return np.fromfile(path, np.float32, tensor.elements, offset=tensor.offset)

    found = {}
    for name in tensors:
        plain = name[: -len(_SUMS)]
        if name.endswith(_SUMS) and plain + _COUNTS in tensors:
            found[plain] = _means(values(name), values(plain + _COUNTS))
    return found


def _means(sums: Array, counts: Array) -> Array:
    """Return the mean for each column of each expert; experts that no token reached have 1 everywhere."""
    if not len(counts) or len(sums) % len(counts):
        raise struct.error
    rows = sums.reshape(len(counts), -1)
    means = np.where(counts[:, None] > 0, rows / np.maximum(counts[:, None], 1), 1.0)
    return np.ascontiguousarray(means.reshape(-1), np.float32)


def _read_dat(path: Path) -> dict[str, Array]:
    if path.stat().st_size > _MAX_DAT_BYTES:
        raise InputError(f"{path} is larger than any importance matrix", _REMEDY)
    content, at, found = path.read_bytes(), 4, {}
    (entries,) = struct.unpack_from("<i", content)
    for _ in range(entries):
        (length,) = struct.unpack_from("<i", content, at)
        name = content[at + 4 : at + 4 + length].decode("utf-8")
        at += 4 + max(0, length)
        calls, count = struct.unpack_from("<ii", content, at)
        if count < 1 or at + 8 + 4 * count > len(content):
            raise struct.error
        found[name] = np.frombuffer(content, "<f4", count, at + 8) / max(1, calls)
        at += 8 + 4 * count
    return {name: np.ascontiguousarray(values, np.float32) for name, values in found.items()}


def write_importance(path: Path, importance: Importance) -> None:
    """Write a file in the older format, .dat."""
    with path.open("wb") as stream:
        stream.write(struct.pack("<i", len(importance)))
        for name, values in importance.items():
            encoded = name.encode()
            stream.write(struct.pack("<i", len(encoded)) + encoded + struct.pack("<ii", 1, len(values)))
            stream.write(values.astype("<f4").tobytes())


def importance_from_text(job: ImportanceJob, report: Report) -> ImportanceAnswer:
    """Run the model on a text, in windows of 512 tokens, and write the importance of the weights of its layers.

    Raises InputError for a text of less than one window.
    """
    library, sums, text = llama.load(), _Sums(), _text(Path(job.text))
    with _context(library, Path(job.artifact), job.threads or performance_cores(), sums) as (handle, context):
        tokens = _tokens(library, handle, text)
        windows = len(tokens) // _WINDOW
        if not windows:
            what = f"the text has {len(tokens)} tokens, too few for an importance matrix"
            raise InputError(what, f"use a text of at least {_WINDOW} tokens; some ten thousand are usual")
        for index in range(windows):
            window = (library.llama_token * _WINDOW)(*tokens[index * _WINDOW : (index + 1) * _WINDOW])
            library.llama_memory_clear(library.llama_get_memory(context), True)
            status = library.llama_decode(context, library.llama_batch_get_one(window, _WINDOW))
            if status or sums.error:
                raise EngineError(f"llama_cpp cannot compute the importance: {sums.error or status}", _REMEDY)
            done = 100 * (index + 1) // windows
            report({"doing": f"{index + 1} of {windows} windows", "done": done, "total": 100})
    found = {name: _means(sums.sums[name].reshape(-1), sums.counts[name]) for name in sums.sums}
    write_importance(Path(job.out), found)
    return ImportanceAnswer(len(found), windows * _WINDOW)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as text: {error}", "use a UTF-8 file") from None


class _Sums:
    """Sums up the squares of what weights are multiplied with, while llama.cpp computes."""

    def __init__(self) -> None:
        from llama_cpp._ggml import libggml

        self.sums: dict[str, Array] = {}
        self.counts: dict[str, Array] = {}
        self.error = ""
        self._name = libggml.ggml_op_name
        self._name.argtypes, self._name.restype = [ctypes.c_int], ctypes.c_char_p

    def on_node(self, address: int, asks: bool, _data: Any) -> bool:
        """See `ggml_backend_sched_eval_callback` in ggml-backend.h: whether the node is wanted, then its turn."""
        try:
            node = _Tensor.from_address(address)
            operation = self._name(node.op)
            if operation not in (b"MUL_MAT", b"MUL_MAT_ID"):
                return False
            weight, given = _Tensor.from_address(node.src[0]), _Tensor.from_address(node.src[1])
            name = weight.name.decode("utf-8", "replace")
            if not (name.startswith("blk.") and name.endswith(".weight")) or given.type != _F32:
                return False
            if operation == b"MUL_MAT" and weight.ne[2] > 1:  # a matrix for each head
                return False
            if not asks:
                experts = _Tensor.from_address(node.src[2]) if operation == b"MUL_MAT_ID" else None
                self._add(name, given.values(np.float32)[0], experts, int(weight.ne[2]))
            return True
        except Exception as error:  # an exception would end in ctypes
            self.error = str(error) or type(error).__name__
            return False

    def _add(self, name: str, given: Array, experts: _Tensor | None, count: int) -> None:
        """Add rows of [tokens, slots or 1, columns]; `experts` names the expert of each token and slot."""
        sums = self.sums.setdefault(name, np.zeros((count, given.shape[-1])))
        counts = self.counts.setdefault(name, np.zeros(count))
        if experts is None:
            rows = given.reshape(-1, given.shape[-1])
            sums[0] += np.square(rows, dtype=np.float64).sum(axis=0)
            counts[0] += len(rows)
            return
        chosen = experts.values(np.int32)[0, 0]  # [tokens, slots]
        for expert in range(count):
            token, slot = np.nonzero(chosen == expert)
            rows = given[token, slot % given.shape[1]]
            sums[expert] += np.square(rows, dtype=np.float64).sum(axis=0)
            counts[expert] += len(rows)


@contextmanager
def _context(library: Any, model: Path, threads: int, sums: _Sums) -> Iterator[tuple[Any, Any]]:
    options = library.llama_model_default_params()
    options.use_extra_bufts = False  # weights as they are; llama.cpp's AMX kernels crash as GCC compiles them
    handle = library.llama_model_load_from_file(str(model).encode(), options)
    if not handle:
        raise EngineError(f"llama_cpp cannot open {model}{llama.last_error()}", "check the file with edge inspect")
    callback = library.ggml_backend_sched_eval_callback(sums.on_node)
    settings = library.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = _WINDOW
    settings.n_threads = settings.n_threads_batch = threads
    settings.cb_eval = callback
    context = library.llama_init_from_model(handle, settings)
    try:
        if not context:
            raise EngineError(f"llama_cpp cannot run {model}{llama.last_error()}", "check the file with edge inspect")
        yield handle, context
    finally:
        if context:
            library.llama_free(context)
        library.llama_model_free(handle)


def _tokens(library: Any, handle: Any, text: str) -> list[int]:
    vocabulary, content = library.llama_model_get_vocab(handle), text.encode("utf-8", "replace")
    room = len(content) + 2
    for _ in range(2):
        tokens = (library.llama_token * room)()
        count = library.llama_tokenize(vocabulary, content, len(content), tokens, room, True, False)
        if count >= 0:
            break
        room = -count
    return list(tokens[: max(0, count)])


def check_importance(importance: Importance, model: GgufFile, where: str) -> None:
    """Raise InputError if the importance belongs to another model."""
    shapes = {tensor.name: tensor.shape for tensor in model.tensors}
    known = [name for name in importance if name in shapes]
    for name in known:
        columns = shapes[name][0] * (shapes[name][2] if len(shapes[name]) > 2 else 1)
        if len(importance[name]) != columns:
            what = f"{where} belongs to another model: {len(importance[name])} values for {name}, which has {columns}"
            raise InputError(what, _REMEDY)
    if not known:
        raise InputError(f"{where} belongs to another model: it names none of the tensors", _REMEDY)


def as_parameter(library: Any, importance: Importance) -> Any:
    """Return the array that `llama_model_quantize_params.imatrix` points to; it must live as long as it is used."""
    entries = (library.llama_model_imatrix_data * (len(importance) + 1))()  # an empty entry ends it
    for entry, (name, values) in zip(entries, importance.items()):
        entry.name, entry.size = name.encode(), len(values)
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return entries
