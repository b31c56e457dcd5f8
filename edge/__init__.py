"""edge: take a model trained on a server and make it run, provably right and measured, on a small machine."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name → the module that holds it. Imported on first use, so that `import edge` stays free of numpy.
_PUBLIC = {
    "Artifact": "runtimes.artifact",
    "Manifest": "runtimes.artifact",
    "TensorSpec": "runtimes.artifact",
    "Quantization": "runtimes.artifact",
    "RunOptions": "runtimes.session",
    "EdgeError": "runtimes.errors",
}

__all__ = [*_PUBLIC, "__version__"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'edge' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
