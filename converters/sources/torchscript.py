"""TorchScript archives: checked for operations beyond computing, and rewritten for torch.export.

Loading an archive runs its `__setstate__` methods, and TorchScript has operators that write files and open
connections. None of it is Python, and PyTorch's own C++ reader reads its pickles without creating Python objects.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.base import Requirement
from converters.library_calls import converting, loading
from converters.pytorch.inputs import TorchOptions, check_runs, varied_feeds
from converters.sources.source import ExportingSource, SourceOptions
from runtimes.errors import EngineError, InputError

if TYPE_CHECKING:
    from converters.pytorch.inputs import TorchFeeds

_SUFFIXES = (".ts", ".torchscript", ".jit", ".pt", ".pth")
_EXPORT = "torch.export.save(torch.export.export(model, inputs), 'model.pt2')"
_SPACES = ("aten", "prim", "quantized", "_quantized")
# Operators by any way of calling them: torch.save(x, …), ops.aten.save(x, …), x.save(…).
_REACHES_OUT = re.compile(
    rf"\b(?:save|from_file|rpc_\w+|fork|wait)\s*\(|\bops\.(?!(?:{'|'.join(_SPACES)})\.)\w+"
    r"|\b__torch__\.torch\.classes\.(?!quantized\.)\w+(?:\.\w+)*"
)


class TorchscriptSource(ExportingSource):
    """Archives written by `torch.jit.save`."""

    id = "torchscript"
    suffixes = _SUFFIXES
    requires = (Requirement("torch"),)
    Options = TorchOptions

    def recognizes(self, path: Path) -> bool:
        """See `Source`. Raises InputError for pickles."""
        if path.is_dir() or not path.exists() or path.suffix.lower() not in _SUFFIXES:
            return False
        if _is_torchscript(path):
            return True
        what = f"{path} is not TorchScript: a pickle could run any code and is never opened"
        weights = f"for weights alone: edge convert package.module:make --weights {path}"
        raise InputError(what, f"export it where it was trained: {_EXPORT}; {weights}")

    def check(self, path: Path, options: SourceOptions) -> None:
        """Raise UsageError without input shapes."""
        self.Options.of(options).read_inputs(path, required=True)

    def export(self, path: Path, options: SourceOptions, folder: Path) -> Path:
        """See `ExportingSource`. Branches and loops that no exported program can hold are written as ONNX."""
        from converters.pytorch.torchscript_export import check_stateless, freeze, has_branches, write_onnx

        own = self.Options.of(options)
        inputs = own.read_inputs(path)
        module = _load(path, own.trusted)
        plain = freeze(module)
        check_stateless(plain, str(path))
        feeds = varied_feeds(inputs)
        try:
            return _write_program(module, feeds if has_branches(plain) else feeds[:1], folder / path.stem, str(path))
        except EngineError:
            onnx = folder / f"{path.stem}.onnx"
        try:
            write_onnx(plain, feeds, onnx, str(path), own.opset)
        except EngineError:
            check_runs(module, feeds[0], str(path))
            raise
        return onnx


def _write_program(module: Any, feeds: Sequence[TorchFeeds], path: Path, name: str) -> Path:
    from converters.pytorch.exported_program import write_program

    program = path.parent / f"{path.name}.pt2"
    write_program(_convert_script(module, feeds[0], name), feeds[0], program, name, module, feeds[1:])
    return program


def _is_torchscript(model: Path) -> bool:
    """Return whether it is an archive of `torch.jit.save`, with code next to data."""
    try:
        with zipfile.ZipFile(model) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return False
    return "constants.pkl" in names and any(name.startswith("code/") for name in names)


def _load(path: Path, trusted: bool = False) -> Any:
    """Return the `torch.jit.ScriptModule` of an archive, in eval mode.

    Raises InputError if it is broken, or could do more than compute and is not `trusted`.
    """
    with loading(path, "TorchScript"):
        import torch

        if not trusted:
            _refuse_unsafe(torch, path)
        return torch.jit.load(path, map_location="cpu").eval()


def _convert_script(module: Any, feeds: TorchFeeds, name: str) -> Any:
    """Convert a ScriptModule to the graph module of an exported program, which torch.export accepts."""
    with converting(name, "torch.export"):
        from torch._export.converter import TS2EPConverter

        given, named = ((), dict(feeds)) if isinstance(feeds, Mapping) else (tuple(feeds), {})
        return TS2EPConverter(module, given, named).convert().module(check_guards=False)


def unsafe_operation(texts: Iterable[str]) -> str | None:
    """Return the first operation in TorchScript code that does more than compute; None if there is none."""
    found = (match for text in texts for match in _REACHES_OUT.finditer(text))
    first = next(found, None)
    return first[0].rstrip("( ") if first else None


def _refuse_unsafe(torch: Any, path: Path) -> None:
    # Use the reader that loads it: two readers of one zip file may see different contents.
    reader = torch._C.PyTorchFileReader(str(path))
    names = [name for name in reader.get_all_records() if name.startswith("code/") and name.endswith(".py")]
    found = unsafe_operation(reader.get_record(name).decode("utf-8") for name in names)
    if found is not None:
        what = f"{path} calls '{found}', which could reach files, other machines or unknown code"
        raise InputError(what, "if you trust its author, pass --trust")
