"""TorchScript: read without running what is not computation, and rewritten so that torch.export takes it.

Loading an archive runs its `__setstate__` methods, and TorchScript has operators that write files and open
connections; none of it is Python, and its pickles are read by PyTorch's own C++ reader, which makes no Python objects.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.quiet import converting, loading
from runtimes.errors import InputError

_SPACES = ("aten", "prim", "quantized", "_quantized")
# Operators by any way of calling them: torch.save(x, …), ops.aten.save(x, …), x.save(…).
_REACHES_OUT = re.compile(
    rf"\b(?:save|from_file|rpc_\w+|fork|wait)\s*\(|\bops\.(?!(?:{'|'.join(_SPACES)})\.)\w+"
    r"|\b__torch__\.torch\.classes\.(?!quantized\.)\w+(?:\.\w+)*"
)


def load_torchscript(path: Path, trusted: bool = False) -> Any:
    """The `torch.jit.ScriptModule` in an archive, in eval mode.

    InputError for one that is broken, or that could do more than compute, unless `trusted`.
    """
    with loading(path, "TorchScript"):
        import torch

        if not trusted:
            _refuse_unsafe(torch, path)
        return torch.jit.load(path, map_location="cpu").eval()


def rewritten(module: Any, feeds: Mapping[str, Any] | Sequence[Any], name: str) -> Any:
    """A ScriptModule as the graph module of an exported program, which torch.export takes."""
    with converting(name, "torch.export"):
        from torch._export.converter import TS2EPConverter

        given, named = ((), dict(feeds)) if isinstance(feeds, Mapping) else (tuple(feeds), {})
        return TS2EPConverter(module, given, named).convert().module(check_guards=False)


def reaching_out(texts: Iterable[str]) -> str | None:
    """The first thing in TorchScript code that is more than computation; None when there is nothing."""
    found = (match for text in texts for match in _REACHES_OUT.finditer(text))
    first = next(found, None)
    return first[0].rstrip("( ") if first else None


def _refuse_unsafe(torch: Any, path: Path) -> None:
    # The same reader that loads it: two readers of one zip file may see two different contents.
    reader = torch._C.PyTorchFileReader(str(path))
    names = [name for name in reader.get_all_records() if name.startswith("code/") and name.endswith(".py")]
    found = reaching_out(reader.get_record(name).decode("utf-8") for name in names)
    if found is not None:
        what = f"{path} calls '{found}', which could reach files, other machines or unknown code"
        raise InputError(what, "if you trust whoever made it, say --trust")
